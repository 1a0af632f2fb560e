"""The process that decodes images: `python -m dmpo_app.exchange.importing.decode_process`, files in, pixels out.

A file that brings a decoder down brings this process down and not the studio's, and decoding many small images takes
turns with nothing else that Python does. It ends when its input does, and so with its parent, however that went.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Sequence
from typing import IO

from dmpo_app.exchange.readers.image_sources import UnusableImage, picture_of
from dmpo_app.exchange.readers.png import png_of

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
