"""The protocol of a format's reader, the pairs that it gives, and their checks, which are the same for all formats.

A pair's images are bytes, files or folders; they are opened and checked here.
"""

import base64
import binascii
import io
import math
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, ImageOps

from dmpo_app.io.files import sha256_hex


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
    TOO_MANY_PAIRS = "a row of more than 1,000 pairs"
    TOO_MUCH_DATA = "images of one row that are larger than 512 MB together"


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
MAX_IMAGE_BYTES = 100 << 20
MAX_ROW_PAIRS, MAX_ROW_IMAGE_BYTES = 1_000, 512 << 20
"""Of one row: a ranking of 45 images gives 990 pairs, and a line of 100,000 letters would give billions."""
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
_DATA_URI = "data:image/"
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, struct.error,
    zlib.error,
)  # fmt: skip


class UnusableImageError(Exception):
    """An image that cannot be used, with the reason; `read_row` never lets it out."""

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
            if path.stat().st_size > MAX_IMAGE_BYTES:
                raise UnusableImageError(LeftOutReason.TOO_LARGE)
            return path.read_bytes()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name; links in a circle
            raise UnusableImageError(LeftOutReason.NO_IMAGE) from error


class RowImages:
    """The image files of one row, each read once, however many pairs name it, and only so many bytes of them."""

    def __init__(self, folder: ImageFolder) -> None:
        self._folder = folder
        self._files: dict[str, bytes | LeftOutReason] = {}
        self._hashes: dict[int, str] = {}
        self._num_bytes = 0

    def content(self, value: object) -> bytes:
        """Read an image cell as `ImageFolder.content` does. Raises UnusableImageError."""
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if not isinstance(value, str):
            return self._folder.content(value)
        if value not in self._files:
            self._files[value] = self._read(value)
        file = self._files[value]
        if isinstance(file, LeftOutReason):
            raise UnusableImageError(file)
        return file

    def _read(self, value: str) -> bytes | LeftOutReason:
        try:
            content = self._folder.content(value)
        except UnusableImageError as problem:
            return problem.reason
        self._num_bytes += len(content)
        return content if self._num_bytes <= MAX_ROW_IMAGE_BYTES else LeftOutReason.TOO_MUCH_DATA

    def sha256(self, file: bytes) -> str:
        """The hash of a file of this row, computed once."""
        if id(file) not in self._hashes:
            self._hashes[id(file)] = sha256_hex(file)
        return self._hashes[id(file)]


def _from_data_uri(value: str) -> bytes:
    head, _, content = value.partition(",")
    if not head.endswith(";base64") or len(content) > MAX_IMAGE_BYTES:
        raise UnusableImageError(LeftOutReason.NO_IMAGE if len(content) <= MAX_IMAGE_BYTES else LeftOutReason.TOO_LARGE)
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UnusableImageError(LeftOutReason.BROKEN_IMAGE) from error


def decode_image(content: bytes) -> Image.Image:
    """Decode an image: RGB, upright by its EXIF orientation, transparent parts on white, without metadata.

    Raises UnusableImageError.
    """
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
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


Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowMetadata:
    """Metadata of a row's vote and images; unchecked cells, None for what the row does not say.

    `annotator`: who voted, by whatever name. `outcome`: of the vote, where `wins_a` cannot hold it. `a_on_left`: the
    sides of the images. `given_at`: when. `provenance_a`, `provenance_b`: how the images were made.
    """

    annotator: object = None
    question: object = None
    outcome: object = None
    strength: object = None
    comment: object = None
    elapsed_ms: object = None
    a_on_left: object = None
    given_at: object = None
    provenance_a: Mapping[str, object] = field(default_factory=dict)
    provenance_b: Mapping[str, object] = field(default_factory=dict)


NO_METADATA = RowMetadata()


@dataclass(frozen=True, slots=True)
class RowPair:
    """A pair as a row has it, unchecked: cells of prompt and images, and the wins of a or why they are not known."""

    prompt: object
    image_a: object
    image_b: object
    wins_a: float | LeftOutReason
    num_votes: int = 1
    metadata: RowMetadata = NO_METADATA


class PreferenceReader(Protocol):
    """The reader of one format; stateless."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def description(self) -> str: ...

    @property
    def columns(self) -> Sequence[frozenset[str]]:
        """The columns that this format must have, in each of its variants."""
        ...

    @property
    def extras(self) -> frozenset[str] | None:
        """Further columns that `read_pairs` takes where they are; None: any. No other column is read from a file."""
        ...

    def detect(self, columns: Collection[str]) -> bool:
        """True for the columns of this format."""
        ...

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        """Read the pairs of a row, most formats have one; the same ones in the same order every time.

        May raise KeyError, TypeError, ValueError or AttributeError for a row of another shape.
        """
        ...


def has_columns(reader: PreferenceReader, columns: Collection[str]) -> bool:
    """True where the columns of a variant of the reader's format are all there."""
    return any(variant <= set(columns) for variant in reader.columns)


def columns_read(reader: PreferenceReader) -> frozenset[str] | None:
    """The columns that a reader takes from a row; None: any."""
    return None if reader.extras is None else frozenset().union(*reader.columns, reader.extras)


def list_pairs(reader: PreferenceReader, row: Row) -> list[RowPair] | LeftOutReason:
    """List the pairs of a row, or say why it is left out. Never raises for what is in the row."""
    try:
        row_pairs = list(islice(reader.read_pairs(row), MAX_ROW_PAIRS + 1))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        return LeftOutReason.BROKEN_ROW
    return row_pairs if len(row_pairs) <= MAX_ROW_PAIRS else LeftOutReason.TOO_MANY_PAIRS


def read_row(
    reader: PreferenceReader, row: Row, source_id: str, folder: ImageFolder
) -> list[PreferencePair | LeftOutPair]:
    """Read and check the pairs of a row. Never raises for what is in the row."""
    row_pairs = list_pairs(reader, row)
    if isinstance(row_pairs, LeftOutReason):
        return [LeftOutPair(row_pairs, source_id)]
    images = RowImages(folder)
    names = [source_id] if len(row_pairs) == 1 else [f"{source_id}/{index}" for index in range(len(row_pairs))]
    return [_check_pair(found, name, images) for found, name in zip(row_pairs, names, strict=True)]


def wins_from_scores(score_a: object, score_b: object) -> float | LeftOutReason:
    """Wins of a from a label each: 1 and 0, 0 and 1, or 0.5 twice for a tie. Anything else is not guessed at."""
    if _is_absent(score_a) or _is_absent(score_b):
        return LeftOutReason.MISSING_LABEL
    try:
        scores = float(score_a), float(score_b)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return LeftOutReason.UNCLEAR_LABEL
    wins_by_scores = {(1.0, 0.0): 1.0, (0.0, 1.0): 0.0, (0.5, 0.5): 0.5}
    return wins_by_scores.get(scores, LeftOutReason.UNCLEAR_LABEL)


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_pair(row_pair: RowPair, source_id: str, images: RowImages) -> PreferencePair | LeftOutPair:
    if not isinstance(row_pair.prompt, str) or not row_pair.prompt.strip():
        return LeftOutPair(LeftOutReason.EMPTY_PROMPT, source_id)
    if isinstance(row_pair.wins_a, LeftOutReason):
        return LeftOutPair(row_pair.wins_a, source_id)
    try:
        image_a, image_b = images.content(row_pair.image_a), images.content(row_pair.image_b)
        if image_a == image_b:
            return LeftOutPair(LeftOutReason.IDENTICAL_IMAGES, source_id)
        decode_image(image_a)
        decode_image(image_b)
    except UnusableImageError as problem:
        return LeftOutPair(problem.reason, source_id)
    return PreferencePair(row_pair.prompt.strip(), image_a, image_b, row_pair.wins_a, row_pair.num_votes, source_id)
