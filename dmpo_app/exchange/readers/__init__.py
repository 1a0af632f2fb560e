"""Preference data as others publish it: where its rows come from, and what each row says about which two images.

Independent of training and of the store, and without torch. A row becomes pairs or a reason why it cannot; nothing is
guessed.
"""
