"""The world of the pocket model: scenes, the language that describes them, and classifiers that read images back.

Using the model needs none of it: `data/pocket/` is an ordinary Stable Diffusion pipeline. `examples/pocket_model/`
draws the scenes and trains it.
"""
