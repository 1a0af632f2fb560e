"""Storages that a backup can be kept on, one file each."""
