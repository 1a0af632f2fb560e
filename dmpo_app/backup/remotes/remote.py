"""Remote storage of a backup: contents by name, in folders that are only a part of the name."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Item = tuple[str, bytes | Path]
"""A name and its content: bytes, or the local file that holds it."""


class Remote(Protocol):
    """A remote storage, thread-safe. Every method raises BackupUnreachableError when the storage does not do its part.

    Names are relative, with `/` between their parts. A content is there whole under its name or not at all.
    """

    @property
    def url(self) -> str:
        """URL of the storage, for messages: without credentials."""
        ...

    @property
    def shortest_pause(self) -> float:
        """Least seconds between two writes, for the storage's rate limits."""
        ...

    def names(self, prefix: str) -> list[str]:
        """List the names that begin with `prefix`, sorted; a prefix is empty or ends in `/`."""
        ...

    def read(self, name: str) -> bytes:
        """Read a content. Raises NotFoundError."""
        ...

    def fetch(self, items: Sequence[tuple[str, Path]]) -> None:
        """Copy contents to local files, which are replaced; their folders are there. Raises NotFoundError."""
        ...

    def put(self, items: Sequence[Item]) -> None:
        """Store contents, replacing what has their names. On return all are there; none is promised before."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Store a content if there is none of that name; False when there is."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Remove contents; those that are gone already do no harm."""
        ...


def without_credentials(url: str) -> str:
    """Strip user, password and query from a URL, for messages and logs."""
    return re.sub(r"(?<=://)[^/@]*@", "", url.split("?", 1)[0].split("#", 1)[0])
