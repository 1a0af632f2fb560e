"""The scenes of the pocket world: their attributes, those that a prompt may name, and random sampling of the rest.

A `Scene` says everything `render` needs. `SceneConstraints` hold only what a prompt names; everything they leave open
(None) varies widely, because tastes (warm light, a large subject, a subject on the left) are learnt from that variety.
"""

from dataclasses import dataclass

import numpy as np

SUBJECTS = ("cat", "house", "tree", "car", "boat", "bird", "fish", "flower", "mushroom", "rocket")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SETTINGS = ("meadow", "beach", "desert", "snow", "city", "forest")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "clouds", "rain", "snowfall")
SIZES = ("small", "large")
PLACES = ("left", "centre", "right")
NUMBERS = (1, 2, 3)

SIZE_RANGES = {"small": (0.62, 0.82), "large": (1.08, 1.36), None: (0.62, 1.36)}
PLACE_RANGES = {"left": (0.22, 0.36), "centre": (0.44, 0.56), "right": (0.64, 0.78), None: (0.22, 0.78)}


@dataclass(frozen=True)
class Scene:
    """The complete description of one image: two equal scenes render to the same pixels."""

    subject: str
    colour: str  # of the subject
    setting: str
    time: str
    weather: str
    size: float  # of the subject, 0.62 (small) to 1.36 (large)
    place: float  # of the subject's middle, 0.22 (left) to 0.78 (right) of the image's width
    number: int  # of subjects, 1 to 3
    facing: int  # 1: to the right, -1: to the left
    warmth: float  # of the light, -1 (cool) to 1 (warm)
    brightness: float  # of the light, -1 (dim) to 1 (bright)
    horizon: float  # its height from the top, as a share of the image
    arrangement: int  # seed of the small things: hills, clouds, windows, tufts of grass


@dataclass(frozen=True)
class SceneConstraints:
    """Attributes that a prompt names; None: left open. `numbers` are the numbers of subjects that fit the prompt."""

    subject: str | None = None
    colour: str | None = None
    setting: str | None = None
    time: str | None = None
    weather: str | None = None
    size: str | None = None
    place: str | None = None
    numbers: tuple[int, ...] = NUMBERS


def is_held_out(subject: str | None, colour: str | None, setting: str | None) -> bool:
    """True for a combination reserved for held-out prompts: no training caption names it.

    Of every subject in every setting one colour is held out, and a fifth of the pairs without a colour.
    A prompt that names no subject or no setting is never held out.
    """
    if subject is None or setting is None:
        return False
    subject_index, setting_index = SUBJECTS.index(subject), SETTINGS.index(setting)
    if colour is None:
        return (subject_index + 2 * setting_index) % 5 == 0
    return (subject_index + 3 * COLOURS.index(colour) + 5 * setting_index) % 8 == 0


def size_name(size: float) -> str | None:
    """The name of a size: 'small', 'large' or None for what lies between."""
    return _range_name(size, SIZE_RANGES)


def place_name(place: float) -> str | None:
    """The name of a place: 'left', 'centre', 'right' or None for what lies between."""
    return _range_name(place, PLACE_RANGES)


def _range_name(value: float, ranges: dict[str | None, tuple[float, float]]) -> str | None:
    for name, (low, high) in ranges.items():
        if name is not None and low <= value <= high:
            return name
    return None


def sample_scene(generator: np.random.Generator, constraints: SceneConstraints | None = None) -> Scene:
    """Sample a scene that fulfils the constraints; what they leave open is random."""
    constraints = constraints or SceneConstraints()
    setting = constraints.setting or str(generator.choice(SETTINGS))
    return Scene(
        subject=constraints.subject or str(generator.choice(SUBJECTS)),
        colour=constraints.colour or str(generator.choice(COLOURS)),
        setting=setting,
        time=constraints.time or str(generator.choice(TIMES, p=(0.46, 0.26, 0.28))),
        weather=constraints.weather or _sample_weather(generator, setting),
        size=float(generator.uniform(*SIZE_RANGES[constraints.size])),
        place=float(generator.uniform(*PLACE_RANGES[constraints.place])),
        number=_sample_number(generator, constraints.numbers),
        facing=int(generator.choice((-1, 1))),
        warmth=float(generator.uniform(-1, 1)),
        brightness=float(generator.uniform(-1, 1)),
        horizon=float(generator.uniform(0.50, 0.66)),
        arrangement=int(generator.integers(2**31)),
    )


def _sample_weather(generator: np.random.Generator, setting: str) -> str:
    probabilities = (0.42, 0.26, 0.02, 0.30) if setting == "snow" else (0.48, 0.34, 0.15, 0.03)
    return str(generator.choice(WEATHERS, p=probabilities))


def _sample_number(generator: np.random.Generator, numbers: tuple[int, ...]) -> int:
    probabilities = np.array([(0.6, 0.22, 0.18)[number - 1] for number in numbers])
    return int(generator.choice(numbers, p=probabilities / probabilities.sum()))
