"""The process that decodes images: `python -m dmpo_app.exchange.importing.decode_process`, files in, pixels out.

A file that brings a decoder down brings this process down and not the studio's, and decoding many small images takes
turns with nothing else that Python does. It ends when its input does, and so with its parent, however that went.
"""

from __future__ import annotations

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

from dmpo_app.exchange.readers.pair import UnusableImage, picture_of

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB, _AVERAGE = 8, 2, 3
_ROWS_AT_ONCE = 256
"""What is held beside a picture of any height is a few times this many rows."""


def png_of(picture: Image.Image) -> bytes:
    """The PNG file of an RGB picture: its pixels and nothing else. The same pixels give the same bytes."""
    pixels = np.asarray(picture)
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _RGB, 0, 0, 0)
    # Run-length coding takes half the time of deflate's search, and finds as much in filtered rows.
    coder = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    rows = pixels.reshape(height, -1)
    parts = [
        coder.compress(_filtered(rows[max(0, start - 1) : start + _ROWS_AT_ONCE], is_first=start == 0).data)
        for start in range(0, height, _ROWS_AT_ONCE)
    ]
    content = b"".join((*parts, coder.flush()))
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _filtered(rows: NDArray[np.uint8], *, is_first: bool) -> NDArray[np.uint8]:
    """What the average of left and above leaves of (rows, 3 width); unless `is_first`, the first row has been coded."""
    above = np.vstack((np.zeros_like(rows[:1]), rows[:-1])) if is_first else rows[:-1]
    coded = rows if is_first else rows[1:]
    left = np.zeros_like(coded)
    left[:, 3:] = coded[:, :-3]
    filtered = np.empty((coded.shape[0], coded.shape[1] + 1), np.uint8)
    filtered[:, 0] = _AVERAGE
    np.subtract(coded, (above & left) + ((above ^ left) >> 1), out=filtered[:, 1:])  # the average, in eight bits
    return filtered


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


READY = b"ready"
"""The first message, before any request."""
KEEP, LET_GO = b"\1", b"\0"
"""The first part of a request: whether the images are wanted as PNG, or only whether they can be decoded."""
USABLE = struct.Struct(">II")
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
    (count,) = _COUNT.unpack(_exactly(stream, _COUNT.size))
    return [_exactly(stream, *_LENGTH.unpack(_exactly(stream, _LENGTH.size))) for _ in range(count)]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _decode(file: bytes, *, keep: bool) -> tuple[bytes, bytes]:
    try:
        picture = picture_of(file)
    except UnusableImage as problem:
        return problem.reason.value.encode(), b""
    return b"", USABLE.pack(picture.width, picture.height) + (png_of(picture) if keep else b"")


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches a whole terminal, and its parent decides
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    send(sink, [READY])
    while True:
        try:
            keep, *files = receive(source)
            send(sink, [part for file in files for part in _decode(file, keep=keep == KEEP)])
        except EOFError:
            return
        except BrokenPipeError:
            os._exit(0)  # nobody is left, and the interpreter would fail once more to flush what nobody reads


if __name__ == "__main__":
    main()
