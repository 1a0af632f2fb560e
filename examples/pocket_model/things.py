"""Subjects that people made. Each has a window, and it is lit at night."""

from examples.pocket_model.brush import INK, LAMP, WHITE, WOOD, Brush, box
from examples.pocket_model.canvas import Colour, darken, deepen, lighten, mix, oval, smooth


def house(brush: Brush, colour: Colour) -> None:
    brush.shape(box(0.18, 0.6, 0.3, 0.95), (170, 110, 92))
    brush.shape(box(-0.4, 0.0, 0.4, 0.56), colour)
    roof = mix(darken(colour, 0.45), (120, 60, 50), 0.35)
    brush.shape([(-0.52, 0.54), (-0.32, 0.9), (0.32, 0.9), (0.52, 0.54)], roof)
    for y in (0.63, 0.72, 0.81):
        brush.line([(-0.47 + (y - 0.54) * 0.55, y), (0.47 - (y - 0.54) * 0.55, y)], darken(roof, 0.25), 0.012)
    brush.shape([(-0.08, 0.0), (-0.08, 0.3), (0.0, 0.37), (0.08, 0.3), (0.08, 0.0)], WOOD)
    brush.flat(oval(0.045, 0.16, 0.016, 0.016, steps=8), LAMP)
    for x in (-0.25, 0.25):
        if brush.light.is_night:
            brush.glow(x, 0.32, 0.3, LAMP, 0.75)
        brush.window(box(x - 0.1, 0.21, x + 0.1, 0.42))
        brush.line([(x, 0.21), (x, 0.42)], INK, 0.014)
        brush.line([(x - 0.1, 0.315), (x + 0.1, 0.315)], INK, 0.014)
        brush.shape(box(x - 0.12, 0.17, x + 0.12, 0.21), WHITE, outline=False)


def car(brush: Brush, colour: Colour) -> None:
    cabin = smooth([(-0.3, 0.3), (-0.2, 0.56), (0.0, 0.61), (0.15, 0.56), (0.28, 0.32), (0.0, 0.26)])
    brush.shape(cabin, lighten(colour, 0.1))
    brush.window([(-0.23, 0.34), (-0.16, 0.51), (-0.02, 0.54), (-0.02, 0.34)])
    brush.window([(0.03, 0.34), (0.03, 0.54), (0.13, 0.51), (0.23, 0.34)])
    brush.shape(
        smooth(
            [
                (-0.5, 0.12),
                (-0.5, 0.3),
                (-0.36, 0.37),
                (0.0, 0.36),
                (0.33, 0.35),
                (0.48, 0.28),
                (0.51, 0.13),
                (0.4, 0.09),
                (0.0, 0.08),
                (-0.4, 0.09),
            ]
        ),
        colour,
    )
    brush.line([(-0.4, 0.29), (0.4, 0.28)], lighten(colour, 0.55), 0.022)
    brush.line([(0.01, 0.11), (0.01, 0.34)], darken(colour, 0.4), 0.012)
    brush.flat(box(0.05, 0.255, 0.12, 0.275), darken(colour, 0.5))
    for x in (-0.29, 0.29):
        brush.shape(oval(x, 0.1, 0.12, 0.12), (58, 56, 68))
        brush.flat(oval(x, 0.1, 0.06, 0.06), (214, 216, 224))
        brush.flat(oval(x, 0.1, 0.022, 0.022, steps=10), (96, 96, 108))
    if brush.light.is_night:
        brush.glow(0.56, 0.24, 0.34, LAMP, 0.9)
    brush.flat(oval(0.465, 0.24, 0.035, 0.045, steps=12), (255, 244, 190))
    brush.flat(oval(-0.49, 0.25, 0.02, 0.04, steps=10), (220, 60, 60))


def boat(brush: Brush, colour: Colour) -> None:
    water: Colour = (112, 180, 214)
    brush.flat(oval(0.0, 0.02, 0.56, 0.09), water)
    brush.flat(oval(0.0, 0.035, 0.5, 0.065), lighten(water, 0.3))
    brush.line([(0.0, 0.2), (0.0, 1.0)], WOOD, 0.04)
    brush.shape([(0.035, 0.94), (0.15, 0.7), (0.36, 0.33), (0.035, 0.33)], lighten(colour, 0.06))
    brush.shape([(-0.035, 0.86), (-0.26, 0.33), (-0.035, 0.33)], mix(colour, WHITE, 0.72))
    for y in (0.46, 0.6):
        brush.line([(0.06, y), (0.33 - (y - 0.33) * 0.55, y)], lighten(colour, 0.5), 0.02)
    brush.shape(smooth([(-0.47, 0.28), (-0.36, 0.08), (0.0, 0.03), (0.36, 0.08), (0.47, 0.28), (0.0, 0.24)]), colour)
    brush.line([(-0.4, 0.235), (0.0, 0.19), (0.4, 0.235)], lighten(colour, 0.7), 0.026)
    for x in (-0.18, 0.0, 0.18):
        brush.window(oval(x, 0.125, 0.035, 0.035, steps=12))
    brush.shape([(0.0, 1.0), (-0.16, 0.955), (0.0, 0.91)], (240, 90, 80))


def rocket(brush: Brush, colour: Colour) -> None:
    brush.glow(0.0, 0.06, 0.34, (255, 190, 90), 0.9)
    brush.flat(smooth([(-0.11, 0.2), (-0.08, 0.04), (0.0, -0.08), (0.08, 0.04), (0.11, 0.2)]), (255, 150, 60))
    brush.flat(smooth([(-0.06, 0.2), (-0.035, 0.08), (0.0, 0.02), (0.035, 0.08), (0.06, 0.2)]), (255, 240, 160))
    for side in (-1, 1):
        brush.shape(
            [(side * 0.14, 0.44), (side * 0.34, 0.22), (side * 0.33, 0.1), (side * 0.14, 0.22)], deepen(colour, 0.6)
        )
    brush.shape(
        smooth(
            [
                (-0.13, 0.18),
                (-0.21, 0.42),
                (-0.19, 0.66),
                (-0.1, 0.88),
                (0.0, 1.02),
                (0.1, 0.88),
                (0.19, 0.66),
                (0.21, 0.42),
                (0.13, 0.18),
                (0.0, 0.16),
            ]
        ),
        colour,
    )
    brush.flat([(-0.105, 0.86), (0.0, 1.02), (0.105, 0.86), (0.0, 0.83)], mix(colour, WHITE, 0.7))
    brush.line([(-0.185, 0.36), (0.0, 0.33), (0.185, 0.36)], mix(colour, WHITE, 0.65), 0.04)
    brush.shape(oval(0.0, 0.6, 0.115, 0.115), (236, 236, 242))
    brush.window(oval(0.0, 0.6, 0.08, 0.08))
    brush.flat(oval(-0.025, 0.63, 0.025, 0.025, steps=10), WHITE)
