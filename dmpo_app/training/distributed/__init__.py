"""Training in several processes: the process group and torchrun's environment."""
