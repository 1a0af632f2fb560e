"""Imports of other people's pairs and votes, and the rows they insert."""
