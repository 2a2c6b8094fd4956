"""Where a harvest reads from (folders, machines over SSH, restore images), and the walk through their files."""
