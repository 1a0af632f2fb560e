"""Decoding of imported images: files in, PNG out; it runs in parser processes.

A file that brings a decoder down brings such a process down and not the studio's, and decoding many small images takes
turns with nothing else that Python does.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmpo_app.exchange.readers.reader import UnusableImageError, decode_image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB, _AVERAGE = 8, 2, 3
_ROWS_AT_ONCE = 256
"""Rows that are filtered at a time, which bounds memory whatever the height."""


def encode_png(image: Image.Image) -> bytes:
    """Encode an RGB image as PNG: its pixels and nothing else. The same pixels give the same bytes."""
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _RGB, 0, 0, 0)
    # Run-length coding takes half the time of deflate's search, and finds as much in filtered rows.
    coder = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    rows = pixels.reshape(height, -1)
    parts = [
        coder.compress(_filter_rows(rows[max(0, start - 1) : start + _ROWS_AT_ONCE], is_first=start == 0).data)
        for start in range(0, height, _ROWS_AT_ONCE)
    ]
    content = b"".join((*parts, coder.flush()))
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _filter_rows(rows: NDArray[np.uint8], *, is_first: bool) -> NDArray[np.uint8]:
    """Apply the average filter to (rows, 3 width); unless `is_first`, the first row has been encoded already."""
    above = np.vstack((np.zeros_like(rows[:1]), rows[:-1])) if is_first else rows[:-1]
    rows_to_filter = rows if is_first else rows[1:]
    left = np.zeros_like(rows_to_filter)
    left[:, 3:] = rows_to_filter[:, :-3]
    filtered = np.empty((rows_to_filter.shape[0], rows_to_filter.shape[1] + 1), np.uint8)
    filtered[:, 0] = _AVERAGE
    np.subtract(
        rows_to_filter, (above & left) + ((above ^ left) >> 1), out=filtered[:, 1:]
    )  # the average, in eight bits
    return filtered


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def decode_files(files: Sequence[bytes], return_png: bool) -> list[tuple[int, int, bytes | None] | str]:
    """Decode files: for each its width, height and, if asked for, its PNG; or the reason why it cannot be used."""
    return [_decode(file, return_png) for file in files]


def _decode(file: bytes, return_png: bool) -> tuple[int, int, bytes | None] | str:
    try:
        image = decode_image(file)
    except UnusableImageError as problem:
        return problem.reason.value
    return image.width, image.height, encode_png(image) if return_png else None
