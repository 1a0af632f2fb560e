"""Static assets of the page: scripts and styles under `static/`, served by their names alone.

The address carries a hash over all of them, so browsers may keep them for ever and modules that import one another
still come from the same build.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dmpo_app.web.error_responses import add_security_headers, problem

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
    @cache
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

    def icon(self) -> str:
        """Tag of the page's icon, for the document itself: without it browsers ask the root of the host for one."""
        return f'<link rel="icon" href=".{PREFIX}/{self.build}/logo.svg">'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI application of /studio/static/{build}/{name}: these files and no others."""
        build, _, name = scope["path"].removeprefix(f"{PREFIX}/").partition("/")
        content = self.files.get(name)
        if content is None:
            response = problem(404, "not_found", "There is no such file.")
        else:
            # A page of an older build gets today's files, but may not keep them under the old name.
            keep = "public, max-age=31536000, immutable" if build == self.build else "no-cache"
            response = Response(content, media_type=_TYPES[Path(name).suffix], headers={"Cache-Control": keep})
        await add_security_headers(response)(scope, receive, send)
