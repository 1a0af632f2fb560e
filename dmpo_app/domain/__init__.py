"""Frozen values that cross layers, and the protocols through which upper layers reach lower ones.

One file a subject. Times are timezone-aware UTC.
"""
