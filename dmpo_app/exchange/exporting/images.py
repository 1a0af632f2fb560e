"""The images of an export: inside its rows, or as files beside them."""

from __future__ import annotations

from pathlib import Path

from dmpo_app.errors import NotFound
from dmpo_app.store.files import Files, sha256_of


class ImageFiles:
    """Images of the store, each checked against its name before it leaves."""

    def __init__(self, files: Files, folder: Path) -> None:
        self._files = files
        self._folder = folder

    def read(self, sha256: str) -> bytes:
        """The PNG. Raises NotFound, also for a file whose content is not what its name says."""
        content = self._files.read_image(sha256)
        if sha256_of(content) != sha256:
            raise NotFound(f"the image {sha256} is damaged in the store")
        return content

    def keep(self, sha256: str) -> str:
        """Put it in the export's folder, once; returns its path there. Raises as `read` does."""
        name = f"images/{sha256[:2]}/{sha256}.png"
        path = self._folder / name
        if not path.exists():
            content = self.read(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name
