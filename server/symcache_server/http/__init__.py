"""What every response of the server has in common: content, limits, who may do what, metrics."""
