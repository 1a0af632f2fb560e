"""Limits of values that people and programs hand in, for every layer that checks one or shows it."""

MAX_HANDLE = 64
"""Characters of an annotator's handle. Handles of this length are stored, so it may grow and not shrink."""
MAX_SEED = 2**31 - 1
"""The largest seed of an image; the smallest is 0. It fits any integer column and any random generator."""
MAX_STRENGTH = 1.5
"""The largest strength of an adapter in an image; 0 is the base model, 1 the adapter as it was trained."""
MAX_GUIDANCE = 30.0
"""The largest guidance scale of an image."""
MAX_VERSION = 2**31 - 1
"""The largest number of a version, as its integer column holds it."""
