"""Machines of the inventory: started and stopped by drivers, checked and set up over SSH."""
