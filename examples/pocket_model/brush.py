"""A brush that draws in a subject's own box: x from -0.5 to 0.5, y from 0 (the ground) up to 1."""

from collections.abc import Sequence
from dataclasses import dataclass

from examples.pocket_model.canvas import Canvas, Colour, Point, darken, deepen, lighten, oval
from examples.pocket_model.light import Light

WHITE: Colour = (255, 255, 255)
INK: Colour = (40, 34, 52)
GLASS: Colour = (186, 224, 244)
LAMP: Colour = (255, 222, 120)
WOOD: Colour = (138, 94, 62)


@dataclass(frozen=True)
class Brush:
    """Draws in a subject's box: `x`, `y` is the middle of its foot in the image, `scale` its height."""

    canvas: Canvas
    light: Light
    x: float
    y: float
    scale: float
    facing: int

    def _place(self, points: Sequence[Point]) -> list[Point]:
        return [(self.x + self.facing * px * self.scale, self.y - py * self.scale) for px, py in points]

    def shape(self, points: Sequence[Point], colour: Colour, *, outline: bool = True, shading: float = 1.0) -> None:
        """Draw a shaded polygon, lighter above and darker below, with a dark outline of its own colour."""
        placed = self._place(points)
        lit = self.light.on_subject(colour)
        self.canvas.shape(placed, lighten(lit, 0.2 * shading), deepen(lit, 0.32 * shading))
        if outline:
            self.canvas.line([*placed, placed[0], placed[1]], darken(lit, 0.58), max(0.007, 0.018 * self.scale))

    def flat(self, points: Sequence[Point], colour: Colour, *, alpha: float = 1.0) -> None:
        self.canvas.shape(self._place(points), self.light.on_subject(colour), alpha=alpha)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        self.canvas.line(self._place(points), self.light.on_subject(colour), width * self.scale)

    def window(self, points: Sequence[Point]) -> None:
        """Draw a window: glass by day, a warm light by night."""
        self.canvas.shape(self._place(points), LAMP if self.light.is_night else self.light.on_subject(GLASS))
        placed = self._place(points)
        self.canvas.line([*placed, placed[0]], self.light.on_subject(INK), max(0.005, 0.012 * self.scale))

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        ((px, py),) = self._place([(x, y)])
        self.canvas.glow(px, py, radius * self.scale, colour, strength)

    def eye(self, x: float, y: float, size: float) -> None:
        self.flat(oval(x, y, size, size * 1.1, steps=14), WHITE)
        self.flat(oval(x + size * 0.22, y - size * 0.05, size * 0.62, size * 0.75, steps=12), INK)
        self.flat(oval(x + size * 0.02, y + size * 0.32, size * 0.24, size * 0.24, steps=8), WHITE)


def box(left: float, bottom: float, right: float, top: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
