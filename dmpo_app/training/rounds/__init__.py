"""Rounds on votes: planned, scheduled, run, published."""
