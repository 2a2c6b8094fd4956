"""What is made from an image on request: symbol files, sections, universal files, sources."""
