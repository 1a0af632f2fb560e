"""The studio as a server process: start, wiring, clean stop."""
