"""Judging in the store: duels between versions, people's judgements of them, and the verdicts about versions."""
