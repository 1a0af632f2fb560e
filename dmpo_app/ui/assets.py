"""Static assets of the page: scripts and styles under `static/`, served by a route that knows them by name.

The address carries a hash over all of them, so browsers may keep them for ever and modules that import one another
still come from the same build.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from fastapi import APIRouter, Response
from fastapi import Path as PathParameter

from dmpo_app.errors import NotFoundError
from dmpo_app.web.error_responses import StudioRoute

FOLDER = Path(__file__).parent / "static"
PREFIX = "/studio/static"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
SCRIPTS = (
    "header.js",
    "label/label.js",
    "compare/compare.js",
    "compare/wipe.js",
    "compare/sheet.js",
    "admin/progress.js",
    "admin/quality.js",
    "admin/prompts.js",
    "compare/suggest.js",
)
STYLES = (
    "studio.css",
    "label/label.css",
    "compare/compare.css",
    "admin/progress.css",
    "admin/quality.css",
    "admin/prompts.css",
)


@dataclass(frozen=True)
class Assets:
    """The static files by their name under `static/`, read once, and the hash of their build."""

    files: dict[str, bytes]
    build: str

    @classmethod
    def load(cls) -> Self:
        paths = (path for path in sorted(FOLDER.rglob("*")) if path.suffix in _TYPES)
        files = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}
        digest = hashlib.sha256()
        for name, content in files.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        return cls(files, digest.hexdigest()[:16])

    def head(self) -> str:
        """Tags for the page's head. Relative addresses, so that the page also works below a path of a proxy."""
        base = f".{PREFIX}/{self.build}"
        styles = "".join(f'<link rel="stylesheet" href="{base}/{name}">' for name in STYLES)
        scripts = "".join(f'<script type="module" src="{base}/{name}"></script>' for name in SCRIPTS)
        return '<meta name="color-scheme" content="light dark">' + styles + scripts

    def router(self) -> APIRouter:
        """GET /studio/static/{build}/{name}: these files and no others."""
        router = APIRouter(route_class=StudioRoute, include_in_schema=False)

        @router.get(PREFIX + "/{build}/{name:path}")
        async def asset(
            build: Annotated[str, PathParameter(max_length=64)], name: Annotated[str, PathParameter(max_length=64)]
        ) -> Response:
            content = self.files.get(name)
            if content is None:
                raise NotFoundError("no such file")
            # A page of an older build gets today's files, but may not keep them under the old name.
            keep = "public, max-age=31536000, immutable" if build == self.build else "no-cache"
            return Response(content, media_type=_TYPES[Path(name).suffix], headers={"Cache-Control": keep})

        return router
