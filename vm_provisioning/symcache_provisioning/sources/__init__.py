"""Where a harvest reads from: folders, machines, firmware; and the walk through them."""
