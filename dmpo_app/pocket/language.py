"""The prompt grammar of the pocket world: phrasing prompts of a scene, and parsing prompts.

The grammar is small on purpose. `describe` phrases a scene in one of several ways; `parse` finds the named attributes
in any prompt by its words, in any order, and ignores words it does not know, as the model learns to do.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dmpo_app.pocket import scenes

PLURALS = {subject: {"house": "houses", "fish": "fish"}.get(subject, subject + "s") for subject in scenes.SUBJECTS}
NUMBER_WORDS = {1: "one", 2: "two", 3: "three"}
SETTING_PHRASES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on a meadow"),
    "beach": ("on the beach", "at the beach"),
    "desert": ("in the desert",),
    "snow": ("in the snow",),
    "city": ("in the city", "in a city"),
    "forest": ("in the forest", "in a forest"),
}
TIME_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight"),
    "sunset": ("at sunset",),
    "night": ("at night", "by night"),
}
WEATHER_PHRASES: dict[str, tuple[str, ...]] = {
    "clear": ("under a clear sky",),
    "clouds": ("with clouds", "under clouds"),
    "rain": ("in the rain",),
    "snowfall": ("with snowflakes",),
}
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("on the left",),
    "centre": ("in the centre", "in the middle"),
    "right": ("on the right",),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
FILLERS = (
    "photo",
    "picture",
    "painting",
    "drawing",
    "of",
    "beautiful",
    "lovely",
    "cute",
    "style",
    "art",
    "detailed",
    "very",
    "nice",
    "my",
    "favourite",
    "and",
    "best",
    "quality",
    "illustration",
    "cosy",
    "dreamy",
    "happy",
)

_WORD_VALUES: tuple[tuple[str, dict[str, str]], ...] = (
    ("time", {"day": "day", "daylight": "day", "sunset": "sunset", "night": "night"}),
    ("weather", {"clear": "clear", "clouds": "clouds", "rain": "rain", "snowflakes": "snowfall"}),
    ("size", {word: size for size, words in SIZE_WORDS.items() for word in words}),
    ("place", {"left": "left", "centre": "centre", "middle": "centre", "right": "right"}),
    ("colour", {colour: colour for colour in scenes.COLOURS}),
    ("setting", {setting: setting for setting in scenes.SETTINGS}),
)


def split_words(prompt: str) -> list[str]:
    """The words of a prompt in small letters, without digits and punctuation."""
    return re.findall(r"[a-z]+", prompt.lower())


def parse(prompt: str) -> scenes.SceneConstraints:
    """Parse the attributes that a prompt names. Of two words for one the first counts; unknown ones are ignored."""
    constraints = scenes.SceneConstraints()
    words = split_words(prompt)
    singular = {subject: subject for subject in scenes.SUBJECTS}
    plural = {many: subject for subject, many in PLURALS.items()}
    for i, word in enumerate(words):
        if constraints.subject is None and (word in singular or word in plural):
            constraints = replace(
                constraints, subject=singular.get(word) or plural[word], numbers=_numbers(words[:i], word)
            )
        for name, values in _WORD_VALUES:
            if word in values and getattr(constraints, name) is None:
                constraints = _with(constraints, name, values[word])
    return constraints


def _with(constraints: scenes.SceneConstraints, name: str, value: str) -> scenes.SceneConstraints:
    changes: dict[str, str] = {name: value}
    return replace(constraints, **changes)  # type: ignore[arg-type]  # every name in _WORD_VALUES is a `str | None` field


def _numbers(before: Sequence[str], noun: str) -> tuple[int, ...]:
    for number, word in NUMBER_WORDS.items():
        if word in before:
            return (number,)
    if "a" in before or "an" in before:
        return (1,)
    if noun in PLURALS.values() and noun not in scenes.SUBJECTS:
        return (2, 3)
    return scenes.NUMBERS


def sample_constraints(scene: scenes.Scene, generator: np.random.Generator) -> scenes.SceneConstraints:
    """Sample the attributes of a scene that its caption names; never a held-out combination."""
    is_named = dict(
        zip(
            ("colour", "setting", "time", "weather", "size", "place", "numbers"),
            generator.uniform(size=7) < (0.68, 0.9, 0.4, 0.2, 0.35, 0.6, 0.75),
            strict=True,
        )
    )
    setting = scene.setting if is_named["setting"] else None
    colour = scene.colour if is_named["colour"] else None
    if scenes.is_held_out(scene.subject, colour, setting):
        setting = None
    return scenes.SceneConstraints(
        subject=scene.subject,
        colour=colour,
        setting=setting,
        time=scene.time if is_named["time"] else None,
        weather=scene.weather if is_named["weather"] else None,
        size=scenes.size_name(scene.size) if is_named["size"] else None,
        place=scenes.place_name(scene.place) if is_named["place"] else None,
        numbers=(scene.number,) if is_named["numbers"] else scenes.NUMBERS,
    )


def phrase(constraints: scenes.SceneConstraints, generator: np.random.Generator) -> str:
    """Phrase a prompt that names exactly these attributes: a sentence, or a list of words with commas."""
    if generator.uniform() < 0.2 or constraints.numbers == scenes.NUMBERS:
        return _as_list(constraints, generator)
    details = [
        str(generator.choice(phrases[value]))
        for phrases, value in (
            (TIME_PHRASES, constraints.time),
            (WEATHER_PHRASES, constraints.weather),
            (PLACE_PHRASES, constraints.place),
        )
        if value is not None
    ]
    generator.shuffle(details)
    if constraints.setting is not None:
        at = int(generator.integers(len(details) + 1)) if generator.uniform() < 0.4 else 0
        details.insert(at, str(generator.choice(SETTING_PHRASES[constraints.setting])))
    joint = ", " if generator.uniform() < 0.35 else " "
    return joint.join([_noun_phrase(constraints, generator), *details])


def _noun_phrase(constraints: scenes.SceneConstraints, generator: np.random.Generator) -> str:
    assert constraints.subject is not None, "a prompt names its subject"
    adjectives = [str(generator.choice(SIZE_WORDS[constraints.size]))] if constraints.size else []
    if constraints.colour:
        adjectives.append(constraints.colour)
    if constraints.numbers == (1,):
        first = (adjectives or [constraints.subject])[0]
        article = "an" if first[0] in "aeiou" else "a"
        return " ".join(["one" if generator.uniform() < 0.1 else article, *adjectives, constraints.subject])
    count = [NUMBER_WORDS[constraints.numbers[0]]] if len(constraints.numbers) == 1 else []
    return " ".join([*count, *adjectives, PLURALS[constraints.subject]])


def _as_list(constraints: scenes.SceneConstraints, generator: np.random.Generator) -> str:
    assert constraints.subject is not None, "a prompt names its subject"
    noun = constraints.subject
    if len(constraints.numbers) == 1:
        noun = f"{NUMBER_WORDS[constraints.numbers[0]]} {noun if constraints.numbers == (1,) else PLURALS[noun]}"
    elif 1 not in constraints.numbers:
        noun = PLURALS[noun]
    weather = {"snowfall": "snowflakes", "clear": "clear sky"}.get(constraints.weather or "", constraints.weather)
    words = [constraints.colour, constraints.setting, constraints.time, weather, constraints.size, constraints.place]
    rest = [word for word in words if word is not None]
    generator.shuffle(rest)
    if constraints.colour and generator.uniform() < 0.5:
        rest.remove(constraints.colour)
        noun = noun.replace(noun.split()[-1], f"{constraints.colour} {noun.split()[-1]}")
    return (", " if generator.uniform() < 0.75 else " ").join([noun, *rest])


def describe(scene: scenes.Scene, generator: np.random.Generator) -> str:
    """Phrase a prompt that is true of the scene and leaves part of it open."""
    return phrase(sample_constraints(scene, generator), generator)


def add_filler_words(prompt: str, generator: np.random.Generator) -> str:
    """Add one to three filler words, which mean nothing to the model, before or behind a prompt."""
    fillers = [
        str(generator.choice(FILLERS))
        if generator.uniform() < 0.6
        else "".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz"), size=int(generator.integers(2, 9))))
        for _ in range(int(generator.integers(1, 4)))
    ]
    if generator.uniform() < 0.5:
        return f"{prompt}, {' '.join(fillers)}"
    return f"{' '.join(fillers)} {prompt}"


def vocabulary() -> list[str]:
    """The vocabulary of the grammar: every word and punctuation mark it can produce, sorted."""
    phrases: tuple[dict[str, tuple[str, ...]], ...] = (
        SETTING_PHRASES,
        TIME_PHRASES,
        WEATHER_PHRASES,
        PLACE_PHRASES,
        SIZE_WORDS,
    )
    texts = [text for group in phrases for values in group.values() for text in values]
    words = {word for text in texts for word in split_words(text)}
    words |= {
        *scenes.SUBJECTS,
        *PLURALS.values(),
        *scenes.COLOURS,
        *scenes.SETTINGS,
        *NUMBER_WORDS.values(),
        "a",
        "an",
        ",",
    }
    return sorted(words)
