"""`python -m symcache`: the same as the command `symcache`."""

from symcache.cli import main

if __name__ == "__main__":
    main()
