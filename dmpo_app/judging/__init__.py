"""Judging by people: the test of a duel between two versions, the board over all of them, and human studies."""
