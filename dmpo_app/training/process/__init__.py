"""The trainer as a process beside the server, and its supervisor."""
