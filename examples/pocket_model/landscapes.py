"""The land of each setting, painted from the horizon to the viewer.

Every painter takes (canvas, scene, light, generator) and leaves the ground where subjects stand
(from the horizon plus 0.1 downwards) calm enough for a subject to be seen on it.
"""

from collections.abc import Callable

import numpy as np

from dmpo_app.pocket.scenes import Scene
from examples.pocket_model.canvas import Canvas, Colour, Point, darken, lighten, mix, oval
from examples.pocket_model.light import Light

Painter = Callable[[Canvas, Scene, Light, np.random.Generator], None]


def paint_land(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    """Paint the land of the scene's setting."""
    painters: dict[str, Painter] = {
        "meadow": _meadow,
        "beach": _beach,
        "desert": _desert,
        "snow": _snow,
        "city": _city,
        "forest": _forest,
    }
    painters[scene.setting](canvas, scene, light, generator)


def _hills(generator: np.random.Generator, base: float, height: float, waves: float) -> list[Point]:
    """Outline of a row of hills, closed along the lower edge of the image."""
    x = np.linspace(-0.02, 1.02, 40)
    first, second = generator.uniform(0, 2 * np.pi, 2)
    y = base - height * (0.65 * np.sin(waves * x * 2 * np.pi + first) + 0.35 * np.sin(2.3 * waves * x * 6 + second))
    return [*zip(x.tolist(), y.tolist(), strict=True), (1.02, 1.02), (-0.02, 1.02)]


def _pine(canvas: Canvas, x: float, base: float, height: float, green: Colour, cap: Colour | None = None) -> None:
    canvas.shape(
        [
            (x - 0.03 * height, base - 0.12 * height),
            (x + 0.03 * height, base - 0.12 * height),
            (x + 0.03 * height, base),
            (x - 0.03 * height, base),
        ],
        darken((96, 66, 48), 0.25),
    )
    for i, width in enumerate((0.30, 0.24, 0.17)):
        low, tip = base - (0.08 + 0.26 * i) * height, base - (0.52 + 0.24 * i) * height
        w = width * height
        canvas.shape(
            [(x, tip), (x + w, low), (x, low + 0.04 * height), (x - w, low)], lighten(green, 0.14), darken(green, 0.2)
        )
        if cap is not None:
            share = 0.45
            canvas.shape(
                [
                    (x, tip),
                    (x + w * share, tip + (low - tip) * share),
                    (x, tip + (low - tip) * share * 0.75),
                    (x - w * share, tip + (low - tip) * share),
                ],
                cap,
            )


def _tufts(canvas: Canvas, generator: np.random.Generator, upper: float, colour: Colour, count: int) -> None:
    for _ in range(count):
        x, y = float(generator.uniform(0, 1)), float(generator.uniform(upper, 1.0))
        size = 0.012 + 0.022 * (y - upper)
        for lean in (-0.6, 0.0, 0.6):
            canvas.line([(x, y), (x + lean * size, y - size * 1.4)], colour, 0.006)


def _meadow(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    h = scene.horizon
    green: Colour = ((112, 178, 78), (132, 186, 70), (88, 168, 96))[int(generator.integers(3))]
    canvas.shape(
        _hills(generator, h - 0.03, 0.05, 0.9), light.far(mix(green, (80, 140, 170), 0.5), 0.35), light.far(green, 0.4)
    )
    canvas.shape(_hills(generator, h + 0.02, 0.028, 1.1), light.far(lighten(green, 0.1), 0.12), light.on_land(green))
    canvas.shape(
        _hills(generator, h + 0.11, 0.022, 0.8), light.on_land(lighten(green, 0.16)), light.on_land(darken(green, 0.25))
    )
    _tufts(canvas, generator, h + 0.14, light.on_land(darken(green, 0.3)), 16)
    for _ in range(int(generator.integers(8, 20))):
        x, y = float(generator.uniform(0, 1)), float(generator.uniform(h + 0.13, 1))
        r = 0.006 + 0.012 * (y - h)
        petal: Colour = ((255, 255, 255), (255, 226, 110), (255, 190, 214), (206, 190, 255))[int(generator.integers(4))]
        canvas.shape(oval(x, y, r * 1.4, r * 1.1, steps=8), light.on_land(petal))
        canvas.shape(oval(x, y, r * 0.5, r * 0.45, steps=6), light.on_land((246, 190, 60)))


def _beach(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    h = scene.horizon
    sea: Colour = ((46, 148, 190), (64, 178, 190), (56, 122, 196))[int(generator.integers(3))]
    shore = h + float(generator.uniform(0.09, 0.13))
    far, near = light.far(darken(sea, 0.15), 0.25), light.on_land(lighten(sea, 0.25))
    canvas.shape([(0, h - 0.06), (1, h - 0.06), (1, 1), (0, 1)], far, near)
    for _ in range(16):
        y = float(generator.uniform(h - 0.04, shore - 0.01))
        x, w = float(generator.uniform(0, 1)), float(generator.uniform(0.02, 0.08))
        canvas.line([(x, y), (x + w, y)], light.far((255, 255, 255), 0.1), 0.005, alpha=0.55)
    sand: Colour = ((244, 218, 162), (250, 226, 184), (236, 204, 150))[int(generator.integers(3))]
    edge = _hills(generator, shore, 0.012, 1.0)
    canvas.shape([(x, y - 0.018) for x, y in edge], light.on_land((250, 254, 255)))
    canvas.shape(edge, light.on_land(darken(sand, 0.22)), light.on_land(sand))
    canvas.shape([(x, y + 0.022) for x, y in edge], light.on_land(lighten(sand, 0.1)), light.on_land(darken(sand, 0.1)))
    for _ in range(22):
        x, y = float(generator.uniform(0, 1)), float(generator.uniform(shore + 0.05, 1))
        canvas.shape(oval(x, y, 0.006, 0.004, steps=8), light.on_land(darken(sand, 0.25)))
    if scene.time != "night":
        for _ in range(int(generator.integers(0, 4))):
            x, y = float(generator.uniform(0.05, 0.95)), float(generator.uniform(0.12, h - 0.15))
            wings = [
                (x - 0.03, y - 0.008),
                (x - 0.015, y - 0.016),
                (x, y),
                (x + 0.015, y - 0.016),
                (x + 0.03, y - 0.008),
            ]
            canvas.line(wings, light.on_land((90, 100, 130)), 0.008)
    for _ in range(int(generator.integers(0, 3))):
        _starfish(canvas, float(generator.uniform(0.05, 0.95)), float(generator.uniform(0.86, 0.96)), light)


def _starfish(canvas: Canvas, x: float, y: float, light: Light) -> None:
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 0.03, 0.012)
    points = zip((x + radius * np.cos(angle)).tolist(), (y + 0.75 * radius * np.sin(angle)).tolist(), strict=True)
    canvas.shape(list(points), light.on_land((240, 140, 110)), light.on_land((214, 104, 92)))


def _desert(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    h = scene.horizon
    sand: Colour = ((226, 164, 92), (218, 146, 88), (234, 182, 110))[int(generator.integers(3))]
    rock = mix(sand, (150, 70, 60), 0.55)
    for _ in range(2):
        x, w, top = (float(generator.uniform(*r)) for r in ((0.0, 0.9), (0.10, 0.2), (0.08, 0.16)))
        canvas.shape(
            [(x - w * 0.3, h), (x, h - top), (x + w, h - top), (x + w * 1.3, h + 0.02)],
            light.far(lighten(rock, 0.1), 0.3),
            light.far(rock, 0.42),
        )
    canvas.shape(_hills(generator, h, 0.03, 0.7), light.far(darken(sand, 0.2), 0.2), light.on_land(darken(sand, 0.1)))
    for x in generator.uniform(0.03, 0.97, int(generator.integers(1, 4))).tolist():
        _cactus(canvas, x, h + 0.07, float(generator.uniform(0.11, 0.17)), light)
    canvas.shape(
        _hills(generator, h + 0.06, 0.03, 0.6), light.on_land(lighten(sand, 0.18)), light.on_land(darken(sand, 0.15))
    )
    canvas.shape(
        _hills(generator, h + 0.17, 0.03, 0.5), light.on_land(lighten(sand, 0.3)), light.on_land(darken(sand, 0.06))
    )
    for _ in range(7):
        x, y = float(generator.uniform(0, 0.9)), float(generator.uniform(h + 0.24, 0.98))
        wave = [(x + 0.02 * i, y + 0.006 * float(np.sin(i * 1.3))) for i in range(7)]
        canvas.line(wave, light.on_land(darken(sand, 0.2)), 0.006, alpha=0.6)


def _cactus(canvas: Canvas, x: float, base: float, height: float, light: Light) -> None:
    green, width = light.on_land((74, 138, 92)), height * 0.2
    canvas.line([(x, base), (x, base - height)], green, width)
    canvas.shape(oval(x, base - height, width / 2, width / 2, steps=12), green)
    for side, low in ((-1, 0.45), (1, 0.58)):
        elbow, top = x + side * width * 1.5, base - height * (low + 0.3)
        canvas.line([(x, base - height * low), (elbow, base - height * low), (elbow, top)], green, width * 0.75)
    canvas.line([(x - width * 0.18, base), (x - width * 0.18, base - height)], lighten(green, 0.25), width * 0.16)


def _snow(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    h = scene.horizon
    for _ in range(3):
        x, w, top = (float(generator.uniform(*r)) for r in ((0.05, 0.95), (0.22, 0.34), (0.16, 0.3)))
        canvas.shape(
            [(x, h - top), (x + w, h + 0.03), (x - w, h + 0.03)],
            light.far((140, 160, 200), 0.25),
            light.far((176, 194, 222), 0.4),
        )
        s = 0.36
        canvas.shape(
            [
                (x, h - top),
                (x + w * s, h - top + top * s),
                (x + w * 0.12, h - top + top * s * 0.72),
                (x - w * 0.06, h - top + top * s * 1.05),
                (x - w * s * 0.9, h - top + top * s * 0.9),
            ],
            light.far((255, 255, 255), 0.1),
        )
    canvas.shape(
        _hills(generator, h + 0.01, 0.025, 0.9), light.on_land((226, 236, 250)), light.on_land((244, 248, 255))
    )
    for x in generator.uniform(0, 1, int(generator.integers(3, 8))).tolist():
        _pine(
            canvas,
            x,
            h + 0.07,
            float(generator.uniform(0.12, 0.22)),
            light.on_land((62, 112, 100)),
            light.on_land((246, 250, 255)),
        )
    canvas.shape(
        _hills(generator, h + 0.09, 0.025, 0.7), light.on_land((255, 255, 255)), light.on_land((206, 222, 246))
    )
    canvas.shape(_hills(generator, h + 0.24, 0.03, 0.6), light.on_land((252, 254, 255)), light.on_land((190, 210, 242)))


def _city(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    h = scene.horizon
    for distance, low, high in ((0.55, 0.22, 0.42), (0.12, 0.10, 0.32)):
        x = -0.03
        while x < 1:
            width, top = float(generator.uniform(0.09, 0.17)), h - float(generator.uniform(low, high))
            wall: Colour = ((168, 148, 150), (132, 142, 166), (186, 160, 138), (146, 130, 156))[
                int(generator.integers(4))
            ]
            _building(
                canvas, (x, top, x + width, h + 0.07), light.far(wall, distance), distance < 0.5, light, generator
            )
            x += width + float(generator.uniform(0, 0.02))
    canvas.shape(
        [(0, h + 0.06), (1, h + 0.06), (1, 1), (0, 1)], light.on_land((186, 184, 186)), light.on_land((168, 166, 172))
    )
    canvas.shape(
        [(0, h + 0.10), (1, h + 0.10), (1, 1), (0, 1)], light.on_land((120, 122, 134)), light.on_land((88, 90, 104))
    )
    stripe = h + 0.10 + (0.9 - h) * 0.5
    for x in np.arange(float(generator.uniform(-0.2, 0)), 1, 0.24).tolist():
        canvas.shape(
            [(x, stripe), (x + 0.13, stripe), (x + 0.122, stripe + 0.018), (x - 0.008, stripe + 0.018)],
            light.on_land((240, 232, 200)),
        )
    for x in (float(generator.uniform(0.04, 0.4)), float(generator.uniform(0.6, 0.96))):
        _lamp_post(canvas, x, h + 0.10, light)


def _lamp_post(canvas: Canvas, x: float, base: float, light: Light) -> None:
    canvas.line([(x, base), (x, base - 0.2)], light.on_land((70, 74, 90)), 0.012)
    if light.is_night:
        canvas.glow(x, base - 0.21, 0.14, (255, 220, 140), 0.9)
    canvas.shape(oval(x, base - 0.21, 0.02, 0.022, steps=14), (255, 240, 190))


def _building(
    canvas: Canvas,
    box: tuple[float, float, float, float],
    wall: Colour,
    is_near: bool,
    light: Light,
    generator: np.random.Generator,
) -> None:
    left, top, right, bottom = box
    canvas.shape([(left, top), (right, top), (right, bottom), (left, bottom)], lighten(wall, 0.08), darken(wall, 0.12))
    if not is_near:
        return
    canvas.shape(
        [(left - 0.005, top), (right + 0.005, top), (right + 0.005, top + 0.012), (left - 0.005, top + 0.012)],
        darken(wall, 0.25),
    )
    columns = max(2, round((right - left) / 0.045))
    step = (right - left) / columns
    for y in np.arange(top + 0.03, bottom - 0.04, 0.048).tolist():
        for column in range(columns):
            x = left + (column + 0.28) * step
            is_lit = generator.uniform() < (0.55 if light.is_night else 0.12)
            pane: Colour = (255, 218, 122) if is_lit else (darken(wall, 0.4) if light.is_night else lighten(wall, 0.45))
            canvas.shape([(x, y), (x + 0.46 * step, y), (x + 0.46 * step, y + 0.026), (x, y + 0.026)], pane)


def _forest(canvas: Canvas, scene: Scene, light: Light, generator: np.random.Generator) -> None:
    h = scene.horizon
    green: Colour = ((44, 106, 74), (58, 116, 62), (40, 98, 88))[int(generator.integers(3))]
    for distance, base, low, high, count in (
        (0.6, 0.02, 0.3, 0.46, 13),
        (0.28, 0.06, 0.26, 0.42, 10),
        (0.0, 0.1, 0.2, 0.36, 7),
    ):
        ground = light.far(darken(green, 0.15), distance)
        canvas.shape([(0, h + base - 0.07), (1, h + base - 0.07), (1, 1), (0, 1)], ground)
        for i in range(count):
            x = (i + float(generator.uniform(0.1, 0.9))) / count
            _pine(canvas, x, h + base, float(generator.uniform(low, high)), light.far(green, distance))
    moss = mix(green, (126, 150, 66), 0.6)
    canvas.shape(
        _hills(generator, h + 0.09, 0.012, 1.0), light.on_land(lighten(moss, 0.08)), light.on_land(darken(moss, 0.35))
    )
    _tufts(canvas, generator, h + 0.13, light.on_land(darken(moss, 0.4)), 22)
    for _ in range(6):
        x, y = float(generator.uniform(0, 1)), float(generator.uniform(h + 0.12, 1))
        canvas.shape(oval(x, y, 0.02, 0.011, steps=10), light.on_land((128, 128, 120)), light.on_land((84, 88, 90)))
