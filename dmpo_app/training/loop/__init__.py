"""The training loop: one step, its optimizer, checkpoints."""
