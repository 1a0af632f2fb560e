"""Readers of published preference data: sources of rows, and one reader a format.

Independent of training and of the store, and without torch. A row becomes pairs or a reason why it cannot; nothing is
guessed.
"""
