"""A pair as a data set gives it, and its images: bytes, files or folders, opened and checked."""

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from PIL import Image, ImageOps


class LeftOutReason(StrEnum):
    """The reason why a row, or a pair of it, is left out. The values stand in the summary for people."""

    EMPTY_PROMPT = "no prompt"
    MISSING_LABEL = "no label"
    UNCLEAR_LABEL = "a label that is neither a choice nor a tie"
    NO_IMAGE = "no image bytes"
    BROKEN_IMAGE = "broken image"
    CRASHING_IMAGE = "an image that brings its decoder down"
    TOO_LARGE = "image of more than 20 megapixels"
    IDENTICAL_IMAGES = "identical images"
    BROKEN_ROW = "a row of another shape than its format has"


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A preference between two images of one prompt.

    `image_a` and `image_b` are whole files (PNG, JPEG or WebP) that have been decoded once to see that they can be.
    `wins_a` is 1 where a was preferred, 0 where b was, 0.5 for a tie. `num_votes` people, at least 1, said so.
    `source_id` names the row in its data set.
    """

    prompt: str
    image_a: bytes
    image_b: bytes
    wins_a: float
    num_votes: int
    source_id: str


@dataclass(frozen=True, slots=True)
class LeftOutPair:
    """A pair that is left out, with the reason."""

    reason: LeftOutReason
    source_id: str


MAX_PIXELS = 20_000_000
"""The largest image that is decoded: a small file can ask for gigabytes."""
MAX_BYTES = 100 << 20
FORMATS = ("PNG", "JPEG", "WEBP")
_DATA_URI = "data:image/"
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, struct.error,
    zlib.error,
)  # fmt: skip


class UnusableImageError(Exception):
    """An image that cannot be used, with the reason; never leaves this package."""

    def __init__(self, reason: LeftOutReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The folder of the image files that rows name by path; `root` None: there are none, only bytes in the rows.

    A path that leads out of the folder is treated as one that does not exist: rows come from strangers.
    """

    root: Path | None = None

    def content(self, value: object) -> bytes:
        """Read an image cell: bytes, a path below the folder, a data URI, or a mapping with `bytes` or `path`.

        Raises UnusableImageError.
        """
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value:
            return value
        if isinstance(value, str) and value.startswith(_DATA_URI):
            return _from_data_uri(value)
        if isinstance(value, str) and value and self.root is not None:
            return self._read(self.root, value)
        raise UnusableImageError(LeftOutReason.NO_IMAGE)

    def _read(self, root: Path, name: str) -> bytes:
        try:
            path = (root / name).resolve()
            if not path.is_relative_to(root.resolve()) or not path.is_file():
                raise UnusableImageError(LeftOutReason.NO_IMAGE)
            if path.stat().st_size > MAX_BYTES:
                raise UnusableImageError(LeftOutReason.TOO_LARGE)
            return path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise UnusableImageError(LeftOutReason.NO_IMAGE) from error


def _from_data_uri(value: str) -> bytes:
    head, _, content = value.partition(",")
    if not head.endswith(";base64") or len(content) > MAX_BYTES:
        raise UnusableImageError(LeftOutReason.NO_IMAGE if len(content) <= MAX_BYTES else LeftOutReason.TOO_LARGE)
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UnusableImageError(LeftOutReason.BROKEN_IMAGE) from error


def decode_image(content: bytes) -> Image.Image:
    """Decode an image: RGB, upright by its EXIF orientation, transparent parts on white, without metadata.

    Raises UnusableImageError.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnusableImageError(LeftOutReason.TOO_LARGE)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            decoded = _on_white(image)
            decoded.info = {}
            return decoded
    except Image.DecompressionBombError as error:
        raise UnusableImageError(LeftOutReason.TOO_LARGE) from error
    except _DECODE_ERRORS as error:
        # What PIL's decoders raise on damaged files, whatever kind of damage it is.
        raise UnusableImageError(LeftOutReason.BROKEN_IMAGE) from error


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    upper = image.convert("RGBA")
    white = Image.new("RGBA", upper.size, "white")
    return Image.alpha_composite(white, upper).convert("RGB")
