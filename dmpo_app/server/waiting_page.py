"""What the studio's address shows before the studio is there: why it is not, in a page that loads itself again."""

from __future__ import annotations

import html
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

_REFRESH_SECONDS = 5
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="{retry}"><title>DMPO Studio</title>
<style>body{{font:18px/1.5 system-ui,sans-serif;max-width:34em;margin:18vh auto;padding:0 1em}}
body{{color:#222;background:#fafafa}}
@media(prefers-color-scheme:dark){{body{{color:#ddd;background:#161616}}}}</style></head>
<body><main role="status"><h1>One moment</h1><p>{said}</p><p>This page loads itself again.</p></main></body></html>
"""


class WaitingPage:
    """Serves at an address until closed. Every request is answered 503: nothing is taken that could be lost."""

    def __init__(self, host: str, port: int) -> None:
        self._said = "The studio is starting."
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="waiting-page", daemon=True
        )
        self._thread.start()

    def say(self, words: str) -> None:
        """What the page says from now on; plain text."""
        self._said = words

    def close(self) -> None:
        """Let go of the address."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def answer(self) -> None:
                if self.path.startswith("/api/"):
                    content, kind = json.dumps({"detail": page._said, "code": "backup_unreachable"}), "application/json"
                else:
                    content, kind = _PAGE.format(retry=_REFRESH_SECONDS, said=html.escape(page._said)), "text/html"
                body = content.encode()
                self.send_response(503)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Retry-After", str(_REFRESH_SECONDS))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.close_connection = True

            do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = answer

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        return Handler
