"""The decoder process: `python -m dmpo_app.exchange.importing.decode_process`, files in, pixels out.

A file that brings a decoder down brings this process down and not the studio's, and decoding many small images takes
turns with nothing else that Python does. It ends when its input does, and so with its parent, however that went.
"""

import os
import signal
import struct
import sys
import zlib
from collections.abc import Sequence
from typing import IO

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


READY = b"ready"
"""The first message, before any request."""
RETURN_PNG, CHECK_ONLY = b"\1", b"\0"
"""The first part of a request: return the images as PNG, or only check that they can be decoded."""
IMAGE_HEADER = struct.Struct(">II")
"""Width and height, before the PNG, where an image can be used; the part before it is empty then, else the reason."""
_COUNT, _LENGTH = struct.Struct(">I"), struct.Struct(">Q")


def send(stream: IO[bytes], parts: Sequence[bytes]) -> None:
    """Write one message. Raises BrokenPipeError when nobody reads."""
    stream.write(_COUNT.pack(len(parts)))
    for part in parts:
        stream.write(_LENGTH.pack(len(part)))
        stream.write(part)
    stream.flush()


def receive(stream: IO[bytes]) -> list[bytes]:
    """Read one message. Raises EOFError when there is none, or not the whole of it."""
    (count,) = _COUNT.unpack(_read_exactly(stream, _COUNT.size))
    return [_read_exactly(stream, *_LENGTH.unpack(_read_exactly(stream, _LENGTH.size))) for _ in range(count)]


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _decode(file: bytes, *, return_png: bool) -> tuple[bytes, bytes]:
    try:
        image = decode_image(file)
    except UnusableImageError as problem:
        return problem.reason.value.encode(), b""
    return b"", IMAGE_HEADER.pack(image.width, image.height) + (encode_png(image) if return_png else b"")


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches a whole terminal, and its parent decides
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    send(sink, [READY])
    while True:
        try:
            mode, *files = receive(source)
            send(sink, [part for file in files for part in _decode(file, return_png=mode == RETURN_PNG)])
        except EOFError:
            return
        except BrokenPipeError:
            os._exit(0)  # nobody is left, and the interpreter would fail once more to flush what nobody reads


if __name__ == "__main__":
    main()
