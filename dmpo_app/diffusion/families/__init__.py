"""Model families: one file each, and a registry that says which file goes with which pipeline.

Nothing is imported here: `families.registry` must stay importable without torch.
"""
