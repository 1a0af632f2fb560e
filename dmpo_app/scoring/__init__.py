"""Automatic scorers of images: their measures, their weights and their registry.

    protocol.py         the protocol of a scorer
    registry.py         the scorers there are, and building one by name
    measures.py         pure functions of pixels (numpy only; the page's half of the studio may import it)
    preprocess.py       images of any size as the square input of a vision tower, in batches
    weights.py          finding and identifying files of weights; the commands that turn pickle files into safetensors
    network_loading.py  loading the networks, and the five linear layers that two of the scorers end in
    pixel_scorer.py     a measure as a scorer
    pocket_fidelity.py  prompt fidelity of images of the pocket world
    clip.py             scores from CLIP's two towers: CLIP score, PickScore, HPSv2.1
    aesthetic.py        the LAION aesthetic predictor
    image_reward.py     ImageReward

torch and transformers are imported by the modules that hold networks, and those only when such a scorer is built.
"""
