"""SSH: sessions, log-in, host keys, SFTP, transfers."""
