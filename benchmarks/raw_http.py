"""A small HTTP client on asyncio streams: with a thousand annotators a full client would be what is measured."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One kept-alive connection; one request at a time.

    A server closes connections that were idle for some seconds. A request that meets a closed one is sent once more,
    as browsers do: everything here may be sent twice. `local_address`: where the connection comes from, such as
    127.0.7.1, which is a network of its own.
    """

    def __init__(self, url: str, *, local_address: str | None = None) -> None:
        self._local_address = None if local_address is None else (local_address, 0)
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """`body`: JSON, or bytes as they are. Raises OSError or asyncio.IncompleteReadError without a whole answer."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in {"Content-Type": "application/json", **(headers or {})}.items()]
        message = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content
        reused = self._streams is not None
        try:
            return await self._exchange(message)
        except (ConnectionError, asyncio.IncompleteReadError):
            if not reused:
                raise
        return await self._exchange(message)

    async def _exchange(self, message: bytes) -> Answer:
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port, local_addr=self._local_address)
            reader, writer = self._streams
            writer.write(message)
            await writer.drain()
            return await self._read(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head[1:] if line)}
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            body = await self._chunks(reader)
        else:
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        if fields.get(b"connection", b"").lower() == b"close":
            self.close()
        return Answer(int(head[0].split()[1]), body)

    @staticmethod
    async def _chunks(reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readline()
        return body
