"""A pool of processes that decode images of strangers, as many as there are cores to spare."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Self

from dmpo_app.errors import StudioError
from dmpo_app.exchange.importing.decode_process import CHECK_ONLY, IMAGE_HEADER, RETURN_PNG, receive, send
from dmpo_app.exchange.readers.pair import LeftOutReason
from dmpo_app.io import module_command

_COMMAND = module_command("dmpo_app.exchange.importing.decode_process")
_MAX_PROCESSES = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image; `png` None where it was only checked."""

    png: bytes | None
    width: int
    height: int


class DecodePool:
    """A pool of decoder processes, started when first needed. One core is left to reading rows and storing them.

    `keeps_images` False: images are decoded, to see that they can be, and let go of.
    """

    def __init__(self, *, keeps_images: bool, command: Sequence[str] = _COMMAND) -> None:
        count = min(_MAX_PROCESSES, max(1, (os.cpu_count() or 1) - 1))
        self._keeps_images = keeps_images
        self._command = command
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._idle: SimpleQueue[_Decoder | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            decoder = self._idle.get()
            if decoder is not None:
                decoder.end()

    def decode(self, files: Sequence[bytes]) -> Future[list[DecodedImage | str]]:
        """Decode files: for each the image, or the reason why it cannot be used."""
        return self._threads.submit(self._decode, files)

    def _decode(self, files: Sequence[bytes]) -> list[DecodedImage | str]:
        results = self._decode_in_process(files)
        if results is not None:
            return results
        if len(files) > 1:  # which of them was it?
            return [self._decode([file])[0] for file in files]
        return [LeftOutReason.CRASHING_IMAGE.value]

    def _decode_in_process(self, files: Sequence[bytes]) -> list[DecodedImage | str] | None:
        """Decode files in one process; None: the process died of it."""
        decoder = self._idle.get()
        try:
            decoder = decoder or _Decoder(self._command)
            parts = decoder.request([RETURN_PNG if self._keeps_images else CHECK_ONLY, *files])
        except (BrokenPipeError, EOFError):
            status = None if decoder is None else decoder.end()
            _log.warning("a process that decodes images ended with %s; %d images were in it", status, len(files))
            decoder = None
            return None
        finally:
            self._idle.put(decoder)
        return [
            reason.decode() or self._parse_decoded(content)
            for reason, content in zip(parts[::2], parts[1::2], strict=True)
        ]

    def _parse_decoded(self, content: bytes) -> DecodedImage:
        width, height = IMAGE_HEADER.unpack_from(content)
        return DecodedImage(content[IMAGE_HEADER.size :] if self._keeps_images else None, width, height)


class _Decoder:
    """One decoder process. Raises StudioError when it does not start."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            receive(self._stream(self._process.stdout))
        except EOFError as error:
            raise StudioError(
                f"the process that decodes images did not start (exit status {self.end()}); what it said is above"
            ) from error

    def request(self, request: Sequence[bytes]) -> list[bytes]:
        """Send a request, receive the reply. Raises BrokenPipeError or EOFError when the process ends instead."""
        send(self._stream(self._process.stdin), request)
        return receive(self._stream(self._process.stdout))

    def end(self) -> int:
        """Close its input, which ends it; returns its exit status."""
        with suppress(BrokenPipeError), self._process:  # what was still to be sent to one that is dead
            pass
        return self._process.wait()

    @staticmethod
    def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None  # both were asked for
        return pipe
