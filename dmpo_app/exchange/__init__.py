"""Preference data between a home and the rest of the world."""
