"""Subjects that are alive. Each has a face, or leaves."""

import numpy as np

from examples.pocket_model.brush import INK, WHITE, WOOD, Brush
from examples.pocket_model.canvas import Colour, darken, deepen, lighten, mix, oval, smooth


def cat(brush: Brush, colour: Colour) -> None:
    tail = smooth([(-0.2, 0.06), (-0.42, 0.1), (-0.5, 0.34), (-0.4, 0.5), (-0.36, 0.42), (-0.4, 0.3), (-0.32, 0.18)])
    brush.shape(tail, colour)
    brush.shape(
        smooth(
            [
                (-0.26, 0.0),
                (-0.3, 0.2),
                (-0.18, 0.44),
                (0.02, 0.56),
                (0.2, 0.44),
                (0.27, 0.2),
                (0.25, 0.0),
                (0.0, -0.02),
            ]
        ),
        colour,
    )
    brush.flat(smooth([(-0.03, 0.06), (-0.06, 0.24), (0.06, 0.4), (0.16, 0.24), (0.14, 0.06)]), lighten(colour, 0.5))
    for x in (-0.03, 0.15):
        brush.shape(smooth([(x - 0.075, 0.03), (x, 0.08), (x + 0.075, 0.03), (x, -0.02)]), lighten(colour, 0.35))
    for x in (-0.17, 0.23):
        ear = [(x - 0.11, 0.74), (x + (0.05 if x > 0 else -0.05), 1.0), (x + 0.11, 0.78)]
        brush.shape(ear, colour)
        brush.flat([(x - 0.05, 0.78), (x + (0.035 if x > 0 else -0.035), 0.93), (x + 0.05, 0.8)], (255, 170, 176))
    brush.shape(
        smooth(
            [
                (-0.29, 0.66),
                (-0.2, 0.83),
                (0.03, 0.87),
                (0.26, 0.83),
                (0.35, 0.66),
                (0.24, 0.5),
                (0.03, 0.45),
                (-0.18, 0.5),
            ]
        ),
        colour,
    )
    brush.flat(smooth([(-0.06, 0.56), (0.04, 0.61), (0.14, 0.56), (0.04, 0.49)]), lighten(colour, 0.65))
    for x in (-0.11, 0.17):
        brush.eye(x, 0.685, 0.075)
    brush.flat([(0.0, 0.605), (0.08, 0.605), (0.04, 0.565)], (232, 110, 120))
    for side in (-1, 1):
        for dy in (0.0, 0.05):
            brush.line([(0.03 + side * 0.14, 0.57 + dy), (0.03 + side * 0.4, 0.55 + 1.6 * dy)], INK, 0.01)


def bird(brush: Brush, colour: Colour) -> None:
    for x in (-0.03, 0.09):
        brush.line([(x, 0.22), (x, 0.01), (x + 0.07, 0.0)], (236, 150, 60), 0.03)
    brush.shape([(-0.2, 0.34), (-0.5, 0.5), (-0.46, 0.34), (-0.5, 0.24), (-0.2, 0.24)], deepen(colour, 0.45))
    brush.shape(
        smooth(
            [
                (-0.3, 0.34),
                (-0.22, 0.56),
                (-0.02, 0.72),
                (0.04, 0.9),
                (0.22, 0.96),
                (0.36, 0.84),
                (0.36, 0.66),
                (0.32, 0.4),
                (0.16, 0.2),
                (-0.1, 0.18),
            ]
        ),
        colour,
    )
    brush.flat(smooth([(0.04, 0.25), (0.12, 0.5), (0.3, 0.6), (0.28, 0.4), (0.16, 0.25)]), mix(colour, WHITE, 0.62))
    brush.shape(
        smooth([(-0.34, 0.32), (-0.2, 0.52), (0.0, 0.58), (0.1, 0.46), (0.02, 0.33), (-0.14, 0.27)]),
        deepen(colour, 0.28),
    )
    for y in (0.4, 0.47):
        brush.line([(-0.18, y - 0.04), (0.02, y)], lighten(colour, 0.4), 0.016)
    brush.shape([(0.34, 0.84), (0.52, 0.76), (0.34, 0.7)], (250, 176, 56))
    brush.eye(0.22, 0.79, 0.07)
    brush.line([(0.14, 0.94), (0.08, 1.04)], colour, 0.03)
    brush.line([(0.19, 0.95), (0.17, 1.06)], colour, 0.03)


def fish(brush: Brush, colour: Colour) -> None:
    brush.shape(smooth([(-0.22, 0.52), (-0.48, 0.78), (-0.44, 0.52), (-0.5, 0.26)]), deepen(colour, 0.28))
    brush.shape(smooth([(-0.1, 0.7), (0.0, 0.9), (0.18, 0.86), (0.2, 0.68)]), deepen(colour, 0.28))
    brush.shape(smooth([(-0.04, 0.34), (-0.08, 0.18), (0.06, 0.2), (0.12, 0.34)]), deepen(colour, 0.28))
    brush.shape(
        smooth(
            [
                (-0.28, 0.52),
                (-0.1, 0.72),
                (0.16, 0.78),
                (0.38, 0.68),
                (0.47, 0.52),
                (0.36, 0.38),
                (0.14, 0.28),
                (-0.1, 0.34),
            ]
        ),
        colour,
    )
    brush.flat(smooth([(-0.1, 0.37), (0.12, 0.42), (0.36, 0.42), (0.14, 0.31)]), mix(colour, WHITE, 0.6))
    for x in (-0.12, 0.0):
        for y in (0.5, 0.6):
            arc = [(x, y - 0.05), (x + 0.045, y), (x, y + 0.05)]
            brush.line(arc, darken(colour, 0.35), 0.018)
    brush.shape(smooth([(0.08, 0.5), (0.0, 0.4), (0.12, 0.4)]), deepen(colour, 0.35))
    brush.eye(0.28, 0.58, 0.075)
    brush.line([(0.37, 0.46), (0.41, 0.45), (0.44, 0.47)], INK, 0.02)
    for x, y, r in ((0.5, 0.76, 0.045), (0.56, 0.9, 0.032), (0.46, 0.98, 0.024)):
        brush.flat(oval(x, y, r, r, steps=14), (226, 246, 255), alpha=0.75)
        brush.flat(oval(x - r * 0.3, y + r * 0.3, r * 0.35, r * 0.35, steps=8), WHITE)


def tree(brush: Brush, colour: Colour) -> None:
    brush.shape([(-0.13, -0.01), (-0.065, 0.12), (-0.055, 0.42), (0.055, 0.42), (0.065, 0.12), (0.13, -0.01)], WOOD)
    brush.line([(0.0, 0.3), (0.14, 0.46)], WOOD, 0.05)
    crown = smooth(
        [
            (-0.4, 0.46),
            (-0.47, 0.62),
            (-0.34, 0.76),
            (-0.24, 0.92),
            (-0.02, 1.0),
            (0.22, 0.93),
            (0.36, 0.78),
            (0.47, 0.62),
            (0.38, 0.45),
            (0.2, 0.4),
            (0.0, 0.36),
            (-0.22, 0.39),
        ]
    )
    brush.shape(crown, colour)
    for x, y, r in ((-0.16, 0.74, 0.2), (0.12, 0.8, 0.17), (0.2, 0.58, 0.15), (-0.2, 0.54, 0.12)):
        brush.flat(oval(x, y, r, r * 0.85), deepen(colour, 0.35))
        brush.flat(oval(x - 0.015, y + 0.03, r * 0.92, r * 0.76), lighten(colour, 0.2))
    for x, y in ((-0.3, 0.6), (-0.08, 0.86), (0.06, 0.62), (0.3, 0.7), (0.02, 0.48)):
        brush.flat(oval(x, y, 0.035, 0.03, steps=10), lighten(colour, 0.5))


def flower(brush: Brush, colour: Colour) -> None:
    green: Colour = (74, 150, 80)
    brush.line([(0.0, 0.0), (0.02, 0.25), (0.0, 0.6)], green, 0.065)
    brush.shape(smooth([(0.01, 0.1), (0.16, 0.22), (0.34, 0.3), (0.24, 0.12)]), green)
    brush.shape(smooth([(0.01, 0.18), (-0.14, 0.3), (-0.32, 0.36), (-0.22, 0.2)]), green)
    for angle in np.arange(8) * np.pi / 4 + np.pi / 8:
        x, y = float(np.cos(angle)), float(np.sin(angle))
        along = [(0.06, 0.07), (0.22, 0.12), (0.335, 0.0), (0.22, -0.12), (0.06, -0.07)]
        brush.shape(smooth([(a * x - b * y, 0.66 + a * y + b * x) for a, b in along], steps=4), colour)
    centre = (250, 190, 60) if colour[2] > 120 or colour[1] < 130 else (132, 84, 52)
    brush.shape(oval(0.0, 0.66, 0.125, 0.125), centre)
    for x in (-0.045, 0.045):
        brush.flat(oval(x, 0.68, 0.02, 0.028, steps=8), INK)
    brush.line([(-0.04, 0.62), (0.0, 0.605), (0.04, 0.62)], INK, 0.018)


def mushroom(brush: Brush, colour: Colour) -> None:
    stem: Colour = (250, 236, 212)
    brush.shape(
        smooth([(-0.15, 0.02), (-0.12, 0.26), (-0.13, 0.48), (0.13, 0.48), (0.12, 0.26), (0.16, 0.02), (0.0, -0.02)]),
        stem,
    )
    brush.shape(
        smooth(
            [
                (-0.5, 0.46),
                (-0.44, 0.7),
                (-0.22, 0.92),
                (0.0, 0.97),
                (0.22, 0.92),
                (0.44, 0.7),
                (0.5, 0.46),
                (0.3, 0.4),
                (0.0, 0.38),
                (-0.3, 0.4),
            ]
        ),
        colour,
    )
    spot = mix(colour, WHITE, 0.8) if min(colour) < 190 else (226, 170, 150)
    for x, y, rx, ry in (
        (-0.24, 0.68, 0.09, 0.085),
        (0.04, 0.8, 0.1, 0.08),
        (0.29, 0.62, 0.08, 0.08),
        (0.03, 0.54, 0.07, 0.055),
        (-0.4, 0.52, 0.04, 0.045),
    ):
        brush.flat(oval(x, y, rx, ry), spot)
    for x in (-0.055, 0.065):
        brush.flat(oval(x, 0.26, 0.022, 0.036, steps=10), INK)
    brush.line([(-0.03, 0.18), (0.005, 0.16), (0.04, 0.18)], INK, 0.018)
