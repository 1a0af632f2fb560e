"""The `dmpo` command: `main` has the application, one file a command group beside it."""
