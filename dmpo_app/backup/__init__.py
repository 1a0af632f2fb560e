"""Opening a home, and its backup: snapshots and a log of changed pages on a storage elsewhere."""
