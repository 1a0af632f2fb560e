"""Automatic scorers of images: their measures, their weights and their registry.

    protocol.py         the protocol of a scorer
    registry.py         the scorers there are, and building one by name
    measures.py         pure functions of pixels (numpy only; the page's half of the studio may import it)
    batches.py          batching for every scorer: check the images, cut them into batches, check the scores
    preprocess.py       images of any size as the square input of a vision tower
    weights.py          finding, reading and identifying files of weights
    conversions.py      the commands that turn published pickle files into safetensors
    pixel_scorer.py     a measure as a scorer
    pocket_fidelity.py  prompt fidelity of images of the pocket world
    clip.py             scores from CLIP's two towers: CLIP score, PickScore, HPSv2.1 (open_clip.py converts its names)
    reward_head.py      the five linear layers that two of the scorers end in
    aesthetic.py        the LAION aesthetic predictor
    image_reward.py     ImageReward (blip.py converts its names)

torch and transformers are imported by the modules that hold networks, and those only when such a scorer is built.
"""
