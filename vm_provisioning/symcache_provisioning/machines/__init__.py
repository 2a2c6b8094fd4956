"""Machines of the inventory: from being made to being taken down."""
