"""Judging: comparing one version with another, by people and by scorers. No torch."""
