"""The operating system as every layer may use it: durable files, processes and their liveness, lines of logs."""
