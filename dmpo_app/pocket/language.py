"""Prompts: from a scene to words and from words back to what they name.

The grammar is small on purpose. `describe` phrases a wish in one of several ways; `parse` finds the named attributes
in any prompt by its words, in any order, and ignores words it does not know, as the model learns to do.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dmpo_app.pocket.scenes import (
    COLOURS,
    NUMBERS,
    SETTINGS,
    SUBJECTS,
    Scene,
    Wish,
    is_held_out,
    place_name,
    size_name,
)

PLURALS = {subject: {"house": "houses", "fish": "fish"}.get(subject, subject + "s") for subject in SUBJECTS}
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
    ("colour", {colour: colour for colour in COLOURS}),
    ("setting", {setting: setting for setting in SETTINGS}),
)


def words_of(prompt: str) -> list[str]:
    return re.findall(r"[a-z]+", prompt.lower())


def parse(prompt: str) -> Wish:
    """What a prompt names. Of two words for the same attribute the first counts; unknown words are ignored."""
    wish = Wish()
    words = words_of(prompt)
    singular = {subject: subject for subject in SUBJECTS}
    plural = {many: subject for subject, many in PLURALS.items()}
    for i, word in enumerate(words):
        if wish.subject is None and (word in singular or word in plural):
            wish = replace(wish, subject=singular.get(word) or plural[word], numbers=_numbers(words[:i], word))
        for name, values in _WORD_VALUES:
            if word in values and getattr(wish, name) is None:
                wish = _with(wish, name, values[word])
    return wish


def _with(wish: Wish, name: str, value: str) -> Wish:
    changes: dict[str, str] = {name: value}
    return replace(wish, **changes)  # type: ignore[arg-type]  # every name in _WORD_VALUES is a `str | None` field


def _numbers(before: Sequence[str], noun: str) -> tuple[int, ...]:
    for number, word in NUMBER_WORDS.items():
        if word in before:
            return (number,)
    if "a" in before or "an" in before:
        return (1,)
    if noun in PLURALS.values() and noun not in SUBJECTS:
        return (2, 3)
    return NUMBERS


def wish_from(scene: Scene, generator: np.random.Generator) -> Wish:
    """A random part of the scene, to be named in a caption; never a held-out combination."""
    named = dict(
        zip(
            ("colour", "setting", "time", "weather", "size", "place", "numbers"),
            generator.uniform(size=7) < (0.68, 0.9, 0.4, 0.2, 0.35, 0.6, 0.75),
            strict=True,
        )
    )
    setting = scene.setting if named["setting"] else None
    colour = scene.colour if named["colour"] else None
    if is_held_out(scene.subject, colour, setting):
        setting = None
    return Wish(
        subject=scene.subject,
        colour=colour,
        setting=setting,
        time=scene.time if named["time"] else None,
        weather=scene.weather if named["weather"] else None,
        size=size_name(scene.size) if named["size"] else None,
        place=place_name(scene.place) if named["place"] else None,
        numbers=(scene.number,) if named["numbers"] else NUMBERS,
    )


def phrase(wish: Wish, generator: np.random.Generator) -> str:
    """A prompt that names exactly what the wish names: a sentence, or a list of words with commas."""
    if generator.uniform() < 0.2 or wish.numbers == NUMBERS:
        return _as_list(wish, generator)
    details = [
        str(generator.choice(phrases[value]))
        for phrases, value in ((TIME_PHRASES, wish.time), (WEATHER_PHRASES, wish.weather), (PLACE_PHRASES, wish.place))
        if value is not None
    ]
    generator.shuffle(details)
    if wish.setting is not None:
        at = int(generator.integers(len(details) + 1)) if generator.uniform() < 0.4 else 0
        details.insert(at, str(generator.choice(SETTING_PHRASES[wish.setting])))
    joint = ", " if generator.uniform() < 0.35 else " "
    return joint.join([_noun(wish, generator), *details])


def _noun(wish: Wish, generator: np.random.Generator) -> str:
    assert wish.subject is not None, "a prompt names its subject"
    adjectives = [str(generator.choice(SIZE_WORDS[wish.size]))] if wish.size else []
    if wish.colour:
        adjectives.append(wish.colour)
    if wish.numbers == (1,):
        first = (adjectives or [wish.subject])[0]
        article = "an" if first[0] in "aeiou" else "a"
        return " ".join(["one" if generator.uniform() < 0.1 else article, *adjectives, wish.subject])
    count = [NUMBER_WORDS[wish.numbers[0]]] if len(wish.numbers) == 1 else []
    return " ".join([*count, *adjectives, PLURALS[wish.subject]])


def _as_list(wish: Wish, generator: np.random.Generator) -> str:
    assert wish.subject is not None, "a prompt names its subject"
    noun = wish.subject
    if len(wish.numbers) == 1:
        noun = f"{NUMBER_WORDS[wish.numbers[0]]} {noun if wish.numbers == (1,) else PLURALS[noun]}"
    elif 1 not in wish.numbers:
        noun = PLURALS[noun]
    weather = {"snowfall": "snowflakes", "clear": "clear sky"}.get(wish.weather or "", wish.weather)
    words = [wish.colour, wish.setting, wish.time, weather, wish.size, wish.place]
    rest = [word for word in words if word is not None]
    generator.shuffle(rest)
    if wish.colour and generator.uniform() < 0.5:
        rest.remove(wish.colour)
        noun = noun.replace(noun.split()[-1], f"{wish.colour} {noun.split()[-1]}")
    return (", " if generator.uniform() < 0.75 else " ").join([noun, *rest])


def describe(scene: Scene, generator: np.random.Generator) -> str:
    """A prompt that is true of the scene and leaves part of it open."""
    return phrase(wish_from(scene, generator), generator)


def with_fillers(prompt: str, generator: np.random.Generator) -> str:
    """The prompt with one to three words before or behind it that mean nothing to the model."""
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
    """Every word the grammar can say, and the marks between them."""
    phrases: tuple[dict[str, tuple[str, ...]], ...] = (
        SETTING_PHRASES,
        TIME_PHRASES,
        WEATHER_PHRASES,
        PLACE_PHRASES,
        SIZE_WORDS,
    )
    texts = [text for group in phrases for values in group.values() for text in values]
    words = {word for text in texts for word in words_of(text)}
    words |= {*SUBJECTS, *PLURALS.values(), *COLOURS, *SETTINGS, *NUMBER_WORDS.values(), "a", "an", ","}
    return sorted(words)
