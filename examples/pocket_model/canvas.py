"""Canvas: soft shapes in unit coordinates, drawn larger than the image and scaled down, which smooths the edges.

Coordinates: x to the right and y down, both 0 to 1 over the image. Colours: (red, green, blue), each 0 to 255.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
Point = tuple[float, float]

OVERSAMPLING = 2


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours: `first` at share 0, `second` at share 1."""
    a, b, c = (x + (y - x) * share for x, y in zip(first, second, strict=True))
    return a, b, c


def lighten(colour: Colour, share: float) -> Colour:
    return mix(colour, (255, 255, 255), share)


def darken(colour: Colour, share: float) -> Colour:
    # Shadows lean to blue: a plain grey shadow looks like dirt.
    return mix(colour, (18, 14, 42), share)


def deepen(colour: Colour, share: float) -> Colour:
    """Darken a colour in its own hue: yellow turns golden and not olive."""
    r, g, b = colour
    return mix(colour, (0.6 * r, 0.5 * g, 0.6 * b), share)


def smooth(points: Sequence[Point], *, steps: int = 6) -> list[Point]:
    """Closed Catmull-Rom curve through the points."""
    p = np.asarray(points, dtype=np.float64)
    before, after, far = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = (np.arange(steps) / steps)[None, :, None]
    p, before, after, far = (a[:, None] for a in (p, before, after, far))
    curve = 0.5 * (
        2 * p
        + (after - before) * t
        + (2 * before - 5 * p + 4 * after - far) * t**2
        + (3 * p - before - 3 * after + far) * t**3
    )
    return [(float(x), float(y)) for x, y in curve.reshape(-1, 2)]


def oval(x: float, y: float, rx: float, ry: float, *, steps: int = 28) -> list[Point]:
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return list(zip((x + rx * np.cos(angle)).tolist(), (y + ry * np.sin(angle)).tolist(), strict=True))


class Canvas:
    """Canvas of an image; `size` is the finished image's side in pixels."""

    def __init__(self, size: int) -> None:
        self._side = size * OVERSAMPLING
        self._size = size
        self.image = Image.new("RGB", (self._side, self._side))

    def _ink(self, colour: Colour, alpha: float = 1.0) -> tuple[int, int, int, int]:
        r, g, b = (max(0, min(255, round(c))) for c in colour)
        return r, g, b, round(255 * alpha)

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._side, y * self._side) for x, y in points]

    def sky(self, stops: Sequence[tuple[float, Colour]]) -> None:
        """Fill the image with a vertical gradient through (height, colour) stops."""
        heights = np.linspace(0, 1, self._side)
        places = [height for height, _ in stops]
        column = np.stack([np.interp(heights, places, [c[i] for _, c in stops]) for i in range(3)], axis=1)
        gradient = np.repeat(column[:, None], self._side, axis=1)
        self.image = Image.fromarray(gradient.round().astype(np.uint8))

    def shape(self, points: Sequence[Point], top: Colour, bottom: Colour | None = None, *, alpha: float = 1.0) -> None:
        """Fill a polygon: plain, or shaded from `top` to `bottom`."""
        pixels = self._pixels(points)
        if bottom is None:
            ImageDraw.Draw(self.image, "RGBA").polygon(pixels, fill=self._ink(top, alpha))
            return
        xs, ys = [p[0] for p in pixels], [p[1] for p in pixels]
        left, upper = int(max(0, min(xs))), int(max(0, min(ys)))
        right, lower = int(min(self._side - 1, max(xs))) + 1, int(min(self._side - 1, max(ys))) + 1
        if right <= left or lower <= upper:
            return
        share = (np.arange(upper, lower) - min(ys)) / max(1.0, max(ys) - min(ys))
        column = np.asarray(top) + share[:, None] * (np.asarray(bottom) - np.asarray(top))
        filling = Image.fromarray(column.clip(0, 255).astype(np.uint8)[:, None]).resize((right - left, lower - upper))
        mask = Image.new("L", filling.size)
        ImageDraw.Draw(mask).polygon([(x - left, y - upper) for x, y in pixels], fill=round(255 * alpha))
        self.image.paste(filling, (left, upper), mask)

    def line(self, points: Sequence[Point], colour: Colour, width: float, *, alpha: float = 1.0) -> None:
        """Draw a line of `width` (share of the image)."""
        draw = ImageDraw.Draw(self.image, "RGBA")
        thickness = max(1, round(width * self._side))
        draw.line(self._pixels(points), fill=self._ink(colour, alpha), width=thickness, joint="curve")

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Draw soft light around a point."""
        cx, cy, r = x * self._side, y * self._side, radius * self._side
        left, upper = int(max(0, cx - r)), int(max(0, cy - r))
        right, lower = int(min(self._side, cx + r)), int(min(self._side, cy + r))
        if right <= left or lower <= upper:
            return
        ys, xs = np.mgrid[upper:lower, left:right]
        fall = np.clip(1 - np.hypot(xs - cx, ys - cy) / r, 0, 1) ** 2 * strength
        mask = Image.fromarray((fall * 255).clip(0, 255).astype(np.uint8))
        self.image.paste(self._ink(colour)[:3], (left, upper, right, lower), mask)

    def finish(self, tint: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Finished image (size, size, 3) times `tint`, factors of columns and channels (size, 3); 1 leaves a value."""
        small = np.asarray(self.image.reduce(OVERSAMPLING), dtype=np.float32)
        return np.asarray((small * tint.astype(np.float32)).clip(0, 255).round().astype(np.uint8))
