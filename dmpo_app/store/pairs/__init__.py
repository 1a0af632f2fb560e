"""Pairs, their images, and the values that are kept for each."""
