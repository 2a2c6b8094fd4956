"""What is made from images on request: symbol files, lists of symbols and sources, sections, universal files."""
