"""Contact sheet of a comparison: the pairs that a scorer finds most improved, and most worsened, as one PNG.

A row has the prompt, the old version's image, the new one's, and the difference of their scores.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dmpo_app.errors import UnreadableFileError

_SIDE = 192
_GAP = 12
_LINE = 18
_TEXT_WIDTH = 230
_CHARACTERS = 34
_LINES = 9
_HEADER = 64
_COLUMN = _TEXT_WIDTH + 2 * _SIDE + 3 * _GAP
_INK, _PALE, _PAPER = (20, 20, 24), (110, 110, 118), (255, 255, 255)


@dataclass(frozen=True, slots=True)
class SheetPair:
    """One pair of images on the sheet; `difference` is the new score minus the old one."""

    prompt: str
    old: Path
    new: Path
    difference: float


def largest(pairs: Sequence[SheetPair], count: int) -> tuple[list[SheetPair], list[SheetPair]]:
    """The pairs with the largest wins and those with the largest losses, at most `count` of each."""
    ordered = sorted(pairs, key=lambda pair: pair.difference)
    losses = [pair for pair in ordered[:count] if pair.difference < 0]
    wins = [pair for pair in ordered[::-1][:count] if pair.difference > 0]
    return wins, losses


def draw_wins_sheet(title: str, pairs: Sequence[SheetPair], *, old: str, new: str, count: int) -> bytes:
    """Draw the sheet and encode it as PNG: wins on the left, losses on the right, `count` rows at most."""
    columns = largest(pairs, count)
    num_rows = max(1, *map(len, columns))
    size = (2 * _COLUMN + 3 * _GAP, _HEADER + num_rows * (_SIDE + _GAP) + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), _cut(title, 120), _INK, font=_font(18))
    for index, (name, chosen) in enumerate(zip(("wins", "losses"), columns, strict=True)):
        left = _GAP + index * (_COLUMN + _GAP)
        draw.text((left, 38), f"largest {name}" if chosen else f"no {name}", _INK, font=_font(15))
        labels = ((_TEXT_WIDTH + _GAP, old), (_TEXT_WIDTH + _SIDE + 2 * _GAP, new)) if chosen else ()
        for offset, label in labels:
            draw.text((left + offset, 40), _cut(label, 26), _PALE, font=_font(13))
        for row, pair in enumerate(chosen):
            _draw_pair(sheet, draw, pair, left, _HEADER + row * (_SIDE + _GAP))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _draw_pair(sheet: Image.Image, draw: ImageDraw.ImageDraw, pair: SheetPair, left: int, top: int) -> None:
    draw.text((left, top), f"{pair.difference:+.4g}", _INK, font=_font(15))
    lines = textwrap.wrap(pair.prompt, _CHARACTERS, max_lines=_LINES, placeholder=" ...")
    draw.text((left, top + _LINE + 4), "\n".join(lines), _PALE, font=_font(13), spacing=4)
    for path, offset in ((pair.old, _TEXT_WIDTH + _GAP), (pair.new, _TEXT_WIDTH + _SIDE + 2 * _GAP)):
        sheet.paste(_thumbnail(path), (left + offset, top))


def _thumbnail(path: Path) -> Image.Image:
    """An image scaled into a square; small ones are enlarged without being blurred."""
    image = open_image(path)
    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def open_image(path: Path) -> Image.Image:
    """Read an image of this run as RGB. Raises UnreadableFileError."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise UnreadableFileError(
            f"{path} cannot be read ({error}); delete it and run the same command again, which renders it anew"
        ) from error


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
