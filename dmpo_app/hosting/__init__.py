"""Where the studio runs and what keeps it beyond its own disk: backups, Spaces, the Hub."""
