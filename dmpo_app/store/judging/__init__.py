"""Judging in the store: duels between versions, studies of them, verdicts about versions, and their effects."""
