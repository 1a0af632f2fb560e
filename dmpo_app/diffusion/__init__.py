"""Everything that touches the weights of a diffusion model: loading, encoding, LoRA, adapter files, the live model.

Nothing is imported here: `diffusion.family` must stay importable without torch.
"""
