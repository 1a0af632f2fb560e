"""The database beneath the store: engines, the writer thread, migrations, copies."""
