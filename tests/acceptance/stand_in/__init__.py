"""Programs of a Mac in their documented forms, for the run to be tried where there is no Mac."""
