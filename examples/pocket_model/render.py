"""Renderer of scenes to pixels."""

import numpy as np
from numpy.typing import NDArray

from dmpo_app.pocket.scenes import Scene
from examples.pocket_model.brush import Brush
from examples.pocket_model.canvas import Canvas, Colour
from examples.pocket_model.landscapes import paint_land
from examples.pocket_model.light import Light, paint_sky, side_light, tint
from examples.pocket_model.subjects import paint_subject

PAINTS: dict[str, Colour] = {
    "red": (216, 44, 48),
    "orange": (246, 138, 32),
    "yellow": (252, 216, 56),
    "green": (58, 168, 72),
    "blue": (44, 104, 222),
    "purple": (132, 70, 190),
    "pink": (248, 142, 188),
    "white": (246, 246, 250),
}
GAP = 0.96  # between the middles of neighbouring subjects, in heights of one


def render(scene: Scene, *, size: int = 128) -> NDArray[np.uint8]:
    """Render a scene to an image uint8 (size, size, 3). The same scene gives the same pixels."""
    generator = np.random.default_rng(scene.arrangement)
    canvas = Canvas(size)
    light = paint_sky(canvas, scene, generator)
    paint_land(canvas, scene, light, generator)
    _paint_subjects(canvas, scene, light, generator)
    _paint_falling(canvas, scene, generator)
    return canvas.finish(np.array(tint(scene)) * side_light(size))


def _paint_subjects(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    scale = 0.54 * scene.size * (1.0, 0.84, 0.74)[scene.number - 1]
    scale = min(scale, 0.98 / (1.0 + (scene.number - 1) * GAP))
    gap = scale * GAP
    # The group keeps its middle at `place` as far as the image is wide enough for it.
    reach = min(0.5, 0.51 * scale + (scene.number - 1) * gap / 2)
    middle = float(np.clip(scene.place, reach, 1 - reach))
    foot = scene.horizon + 0.16 + 0.12 * (scene.size - 0.62) / 0.74
    base = PAINTS[scene.colour]
    for i in range(scene.number):
        x = middle + (i - (scene.number - 1) / 2) * gap
        y = foot + float(generator.uniform(-0.02, 0.05))
        own = scale * float(generator.uniform(0.92, 1.06))
        r, g, b = (c * (1 + float(generator.uniform(-0.05, 0.05))) for c in base)
        paint_subject(Brush(canvas, light, x, y, own, scene.facing), scene.subject, (r, g, b))


def _paint_falling(canvas: Canvas, scene: Scene, generator: np.random.Generator) -> None:
    if scene.weather == "rain":
        for x, y in generator.uniform(-0.05, 1, (70, 2)).tolist():
            canvas.line([(x, y), (x - 0.012, y + 0.05)], (214, 226, 246), 0.005, alpha=0.6)
    if scene.weather == "snowfall":
        for x, y, r in generator.uniform(0, 1, (70, 3)).tolist():
            r = 0.005 + 0.007 * r
            canvas.shape([(x - r, y), (x, y - r), (x + r, y), (x, y + r)], (255, 255, 255), alpha=0.9)
