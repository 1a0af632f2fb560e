"""The diffusion model and its weights: loading, encoding, LoRA, adapter files, the live model.

Nothing is imported here: `diffusion.base_models` must stay importable without torch.
"""
