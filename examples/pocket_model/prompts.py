"""The shipped prompt files: `train.txt` for people to vote on, `held-out.txt` to measure generalisation of a taste.

The two share no combination of subject, colour (or none) and setting; see `scenes.is_held_out`.
"""

from pathlib import Path

import numpy as np

from dmpo_app.pocket.language import phrase
from dmpo_app.pocket.scenes import COLOURS, PLACES, SETTINGS, SIZES, SUBJECTS, TIMES, SceneConstraints, is_held_out


def sample_prompts(count: int, *, held_out: bool, generator: np.random.Generator) -> list[str]:
    """Sample `count` different prompts; about a third name no colour, most leave two or more attributes open."""
    prompts: dict[str, None] = {}  # a dict keeps the order and drops repetitions
    while len(prompts) < count:
        wish = _sample_wish(generator, subject=SUBJECTS[len(prompts) % len(SUBJECTS)])
        if is_held_out(wish.subject, wish.colour, wish.setting) == held_out:
            prompts[phrase(wish, generator)] = None
    return list(prompts)


def _sample_wish(generator: np.random.Generator, *, subject: str) -> SceneConstraints:
    has_colour = generator.uniform() < 0.6
    has_time, has_size, has_place, is_rainy, is_many = generator.uniform(size=5) < (0.3, 0.12, 0.08, 0.05, 0.12)
    many = ((2, 3), (2,), (3,))[int(generator.integers(3))]
    return SceneConstraints(
        subject=subject,
        colour=str(generator.choice(COLOURS)) if has_colour else None,
        setting=str(generator.choice(SETTINGS)),
        time=str(generator.choice(TIMES)) if has_time else None,
        weather="rain" if is_rainy else None,
        size=str(generator.choice(SIZES)) if has_size else None,
        place=str(generator.choice(PLACES)) if has_place else None,
        numbers=many if is_many else (1,),
    )


def write_prompts(folder: Path, *, seed: int = 7) -> None:
    """Write both files anew: 360 prompts to train on, 100 held out."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, held_out in (("train.txt", 360, False), ("held-out.txt", 100, True)):
        prompts = sample_prompts(count, held_out=held_out, generator=generator)
        (folder / name).write_text("\n".join(prompts) + "\n", encoding="utf-8")
