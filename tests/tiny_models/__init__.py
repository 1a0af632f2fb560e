"""Tiny random folders of each model family: every part a published model has, seconds to build, the same each time."""
