"""Automatic scorers of images: their measures, their weights and their registry.

    registry.py         the protocol of a scorer, the scorers there are, building one by name
    measures.py         pure functions of pixels (numpy only; the page's half of the studio may import it)
    weights.py          finding and identifying files of weights; the commands that turn pickle files into safetensors
    networks.py         loading networks, preparing images for them in batches, the head that two of the scorers end in
    pocket_fidelity.py  prompt fidelity of images of the pocket world
    clip.py             scores from CLIP's towers: CLIP score, PickScore, HPSv2.1, the LAION aesthetic predictor
    image_reward.py     ImageReward

torch and transformers are imported by the modules that hold networks, and those only when such a scorer is built.
"""
