"""Opening of strangers' files: child processes with limits, and the checks of containers before they are parsed."""
