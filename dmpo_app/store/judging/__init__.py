"""Judging in the store: duels between versions, which people judge, and their judgements."""
