"""Judging: duels, studies, verdicts, effects."""
