"""Backup of a server: claim and restore before the studio opens, upload while it runs."""

from __future__ import annotations

import html
import json
import logging
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self

from dmpo_app.errors import BackupUnreachableError, SetupError
from dmpo_app.io.processes import StopFlag
from dmpo_app.settings import Settings
from dmpo_app.store.store import utc_now
from dmpo_app.web.http_server import listening_sockets

if TYPE_CHECKING:
    from dmpo_app.backup.backup_service import Backup
    from dmpo_app.backup.remotes.remote import Remote
    from dmpo_app.backup.startup import Claim

_log = logging.getLogger(__name__)


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
    """HTTP server of the page, until closed. Every request is answered 503: nothing is taken that could be lost.

    But /healthz: who restarts what is not alive would have the restore begin anew.
    """

    def __init__(self, host: str, port: int, root_path: str) -> None:
        self._message = "The studio is starting."
        self._root_path = root_path
        listener, *others = listening_sockets(host, port)
        for other in others:
            other.close()
        self._server = ThreadingHTTPServer((host, port), self._handler(), bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listener  # its own would know IPv4 alone
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="waiting-page", daemon=True
        )
        self._thread.start()

    def set_message(self, words: str) -> None:
        """Set the message that the page shows from now on; plain text."""
        self._message = words

    def close(self) -> None:
        """Let go of the address."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, path: str) -> tuple[int, str, str]:
        """Status, content and media type for a path, with the root path or without it."""
        from dmpo_app.web.routes.health_routes import ALIVE, AliveAnswer  # FastAPI, which other starts do not wait for

        if path in (ALIVE, self._root_path + ALIVE):
            return 200, AliveAnswer().model_dump_json(), "application/json"
        if path.removeprefix(self._root_path).startswith("/api/") or path.startswith("/api/"):
            return 503, json.dumps({"detail": self._message, "code": "backup_unreachable"}), "application/json"
        return 503, _PAGE.format(retry=_REFRESH_SECONDS, said=html.escape(self._message)), "text/html"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def respond(self) -> None:
                status, content, kind = page._answer(self.path.partition("?")[0])
                body = content.encode()
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Retry-After", str(_REFRESH_SECONDS))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.close_connection = True

            do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = respond

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        return Handler


_RETRY_SECONDS = 2.0
_UNREACHABLE_MESSAGE = (
    "The storage that keeps the votes is out of reach, so the studio does not open yet: votes cast now could be lost."
)


class ClaimedBackup(NamedTuple):
    """A backup storage with the claim by which this server may write to it."""

    remote: Remote
    claim: Claim


def claim_backup(settings: Settings, stopping: StopFlag) -> ClaimedBackup | None:
    """Claim the backup and restore what this disk does not have; None without a backup, or when told to stop.

    While the storage is out of reach this waits, and the studio's address says so. Raises SetupError,
    BackupDamagedError.
    """
    backup_settings = settings.backup
    if backup_settings.url is None:
        return None
    from dmpo_app.backup.remotes import open_remote
    from dmpo_app.backup.startup import claim_and_restore

    remote = open_remote(backup_settings.url)
    if backup_settings.acknowledge == "remote" and remote.shortest_pause > 0:
        raise SetupError(
            f"votes cannot wait for {remote.url}, which takes a write every {remote.shortest_pause:g} s; set "
            "DMPO_BACKUP__ACKNOWLEDGE=disk, or use a bucket"
        )
    with WaitingPage(settings.host, settings.port, settings.root_path) as page:

        def progress(words: str) -> None:
            _log.info("backup: %s", words)
            page.set_message(f"The studio is coming back from its backup: {words}.")

        while not stopping.is_set():
            try:
                claim = claim_and_restore(
                    settings.home,
                    remote,
                    handover_seconds=backup_settings.handover_seconds,
                    now=utc_now,
                    on_progress=progress,
                )
            except BackupUnreachableError as error:
                _log.warning("the studio does not open yet: %s", error)
                page.set_message(_UNREACHABLE_MESSAGE)
                stopping.wait(_RETRY_SECONDS)
            else:
                return ClaimedBackup(remote, claim)
    return None


def start_backup(settings: Settings, claimed_backup: ClaimedBackup | None, stack: ExitStack) -> Backup | None:
    """Start uploading the open home; it is stopped with `stack`, after everything that was entered later."""
    if claimed_backup is None:
        return None
    from dmpo_app.backup.backup_service import Backup, BackupUploader

    uploader = BackupUploader(settings.home, claimed_backup.remote, claimed_backup.claim, settings.backup, now=utc_now)
    backup = Backup(uploader, claimed_backup.remote, claimed_backup.claim, settings.backup)
    backup.start()
    stack.callback(backup.stop)
    return backup
