"""Files of the server: decoded ones to send, uploaded ones to take in."""
