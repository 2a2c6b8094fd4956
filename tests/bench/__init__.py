"""Speed against peers, as ratios taken in one run: `make bench`. Never a test: machines differ."""
