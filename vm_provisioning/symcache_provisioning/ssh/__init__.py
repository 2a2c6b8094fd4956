"""SSH: connections and sessions, login, host keys, SFTP and transfers of files. Nothing here knows about macOS."""
