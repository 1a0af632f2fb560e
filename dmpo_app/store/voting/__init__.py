"""Assignments, votes and the people who give them: one file a subject."""
