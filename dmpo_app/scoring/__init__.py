"""Automatic scorers of images: what they measure, where their weights come from, and the list of them.

    protocol.py         what a scorer is
    registry.py         the scorers there are, and building one by name
    measures.py         pure functions of pixels (numpy only; the page's half of the studio may import it)
    batches.py          what every scorer does with its images: check, cut into batches, check the scores
    preprocess.py       pictures of any size as the square input of a vision tower
    weights.py          finding, reading and identifying files of weights
    conversions.py      the commands that turn published pickle files into safetensors
    pixel_scorer.py     a measure as a scorer
    pocket_fidelity.py  whether a picture of the pocket world shows what its prompt names
    clip.py             scores from CLIP's two towers: CLIP score, PickScore, HPSv2.1 (open_clip.py converts its names)
    reward_head.py      the five linear layers that two of the scorers end in
    aesthetic.py        the LAION aesthetic predictor
    image_reward.py     ImageReward (blip.py converts its names)

torch and transformers are imported by the modules that hold networks, and those only when such a scorer is built.
"""
