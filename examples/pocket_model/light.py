"""Light of a scene: the colours of its sky, and factors of the time of day on the colours under it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmpo_app.pocket.scenes import Scene
from examples.pocket_model.canvas import Canvas, Colour, lighten, mix

SKIES: dict[str, tuple[tuple[Colour, Colour], ...]] = {  # (top, at the horizon)
    "day": (((74, 150, 232), (196, 229, 250)), ((98, 178, 236), (226, 242, 246)), ((116, 168, 226), (250, 232, 214))),
    "sunset": (((82, 72, 150), (255, 166, 104)), ((196, 88, 122), (255, 204, 128)), ((104, 116, 190), (255, 176, 172))),
    "night": (((14, 18, 56), (58, 66, 130)), ((24, 20, 66), (92, 70, 138)), ((10, 28, 62), (40, 92, 128))),
}
AMBIENT: dict[str, Colour] = {"day": (1.0, 1.0, 1.0), "sunset": (0.97, 0.79, 0.74), "night": (0.40, 0.45, 0.68)}
# Subjects keep more of their own colour than the land does, or red and orange would be one at sunset.
SUBJECT_LIGHT: dict[str, Colour] = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.93, 0.9), "night": (0.85, 0.86, 0.95)}


@dataclass(frozen=True)
class Light:
    """Multipliers per channel for land and subject, and the colour of the air at the horizon."""

    ambient: Colour
    subject: Colour
    haze: Colour
    is_night: bool

    def on_land(self, colour: Colour) -> Colour:
        r, g, b = (c * a for c, a in zip(colour, self.ambient, strict=True))
        return r, g, b

    def on_subject(self, colour: Colour) -> Colour:
        r, g, b = (c * a for c, a in zip(colour, self.subject, strict=True))
        return r, g, b

    def far(self, colour: Colour, distance: float) -> Colour:
        """`colour` of land seen through the air; distance 0 (here) to 1 (lost in the haze)."""
        return mix(self.on_land(colour), self.haze, distance)


def tint(scene: Scene) -> Colour:
    """Factors of warmth and brightness on every pixel of the finished image."""
    level = 1 + 0.09 * scene.brightness
    return level * (1 + 0.07 * scene.warmth), level, level * (1 - 0.09 * scene.warmth)


def side_light(size: int) -> NDArray[np.float64]:
    """Factors (size, 3) of the light, always from the left, on the columns of an image.

    Besides being pleasant to see it teaches the model left from right: without any lasting difference between the
    sides, a convolutional denoiser has no use for knowing them, and neither words nor preferences about places stick.
    """
    towards_left = np.linspace(1, -1, size)[:, None]
    factors: NDArray[np.float64] = 1 + towards_left * np.array([0.13, 0.11, 0.06])
    return factors


def paint_sky(canvas: Canvas, scene: Scene, generator: np.random.Generator) -> Light:
    """Paint the sky with sun or moon, stars and clouds; returns the light under it."""
    skies = SKIES[scene.time]
    top, low = skies[int(generator.integers(len(skies)))]
    if scene.weather in ("rain", "snowfall"):
        grey: Colour = {"day": (168, 182, 200), "sunset": (176, 146, 160), "night": (46, 50, 84)}[scene.time]
        top, low = mix(top, grey, 0.55), mix(low, lighten(grey, 0.25), 0.55)
    canvas.sky([(0, top), (scene.horizon, low), (1, low)])
    if scene.time == "night":
        _stars(canvas, scene, generator)
    _sun_or_moon(canvas, scene, generator)
    if scene.weather != "clear":
        _clouds(canvas, scene, generator, low)
    return Light(AMBIENT[scene.time], SUBJECT_LIGHT[scene.time], low, scene.time == "night")


def _stars(canvas: Canvas, scene: Scene, generator: np.random.Generator) -> None:
    count = 46 if scene.weather == "clear" else 12
    for x, y, size in zip(*(generator.uniform(0, 1, count) for _ in range(3)), strict=True):
        r = 0.003 + 0.005 * size**3
        height = y * scene.horizon * 0.92
        canvas.shape([(x, height - r), (x + r, height), (x, height + r), (x - r, height)], (255, 248, 220), alpha=0.9)
        if size > 0.9:
            canvas.glow(x, height, 0.03, (255, 250, 230), 0.7)


def _sun_or_moon(canvas: Canvas, scene: Scene, generator: np.random.Generator) -> None:
    x = float(generator.uniform(0.12, 0.88))
    if scene.time == "night":
        y = float(generator.uniform(0.10, 0.24))
        canvas.glow(x, y, 0.24, (190, 205, 255), 0.5)
        _disc(canvas, x, y, 0.055, (255, 248, 222), (238, 226, 200))
        for dx, dy, r in ((-0.018, -0.012, 0.012), (0.016, 0.014, 0.015), (0.012, -0.024, 0.007)):
            _disc(canvas, x + dx, y + dy, r, (232, 220, 196), (226, 212, 190))
        return
    if scene.weather in ("rain", "snowfall"):
        return
    if scene.time == "sunset":
        y = scene.horizon - float(generator.uniform(0.02, 0.14))
        canvas.glow(x, y, 0.5, (255, 214, 130), 0.8)
        _disc(canvas, x, y, 0.085, (255, 240, 176), (255, 196, 108))
        return
    y = float(generator.uniform(0.10, 0.22))
    canvas.glow(x, y, 0.28, (255, 250, 214), 0.85)
    _disc(canvas, x, y, 0.06, (255, 250, 190), (255, 226, 120))


def _disc(canvas: Canvas, x: float, y: float, r: float, top: Colour, bottom: Colour) -> None:
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    points = zip((x + r * np.cos(angle)).tolist(), (y + r * np.sin(angle)).tolist(), strict=True)
    canvas.shape(list(points), top, bottom)


def _clouds(canvas: Canvas, scene: Scene, generator: np.random.Generator, low: Colour) -> None:
    white: Colour = {"day": (255, 255, 255), "sunset": (255, 214, 200), "night": (112, 122, 172)}[scene.time]
    if scene.weather in ("rain", "snowfall"):
        white = mix(white, (120, 126, 150), 0.35)
    count = 3 if scene.weather == "clouds" else 5
    for i in range(count):
        x = (i + float(generator.uniform(0.1, 0.9))) / count
        y = float(generator.uniform(0.07, scene.horizon * 0.55))
        _cloud(canvas, x, y, float(generator.uniform(0.08, 0.14)), white, mix(white, low, 0.5))


def _cloud(canvas: Canvas, x: float, y: float, size: float, top: Colour, bottom: Colour) -> None:
    for part, shift in ((bottom, 0.05), (top, 0.0)):
        for dx, dy, r in ((-0.95, 0.12, 0.42), (-0.4, -0.18, 0.58), (0.25, -0.28, 0.66), (0.9, 0.06, 0.46)):
            _disc(canvas, x + dx * size, y + (dy + shift * 2) * size, r * size, part, mix(part, bottom, 0.6))
        left, right, base = x - 1.25 * size, x + 1.25 * size, y + (0.42 + shift * 2) * size
        middle = base - 0.2 * size
        canvas.shape(
            [(left, middle), (right, middle), (right - 0.2 * size, base), (left + 0.2 * size, base)],
            mix(part, bottom, 0.4),
            mix(part, bottom, 0.7),
        )
