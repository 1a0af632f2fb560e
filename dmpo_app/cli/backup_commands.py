"""`dmpo backup`, `dmpo restore`, `dmpo verify`: store a home in a backup, restore it, check its integrity."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dmpo_app.cli.terminal import StudioContext, console, exit_on_error, log_to_terminal, out, progress
from dmpo_app.errors import NotFoundError, SetupError
from dmpo_app.io.files import make_files_private

if TYPE_CHECKING:
    from dmpo_app.backup.remotes.remote import Remote
    from dmpo_app.domain.lineage import TakenBack

_WHERE = "A folder, s3://bucket/folder, hf://buckets/user/name, hf://datasets/user/name, ... [DMPO_BACKUP__URL]"


def backup(
    context: StudioContext, url: Annotated[str | None, typer.Argument(help=_WHERE, show_default=False)] = None
) -> None:
    """Store a home in a backup now: a snapshot and the files that are not there yet.

    A running studio does so by itself for DMPO_BACKUP__URL; another URL can be given while it runs.
    """
    log_to_terminal(logging.INFO)
    with exit_on_error(), ExitStack() as stack:
        from dmpo_app.backup.backup_service import SCRATCH, BackupUploader
        from dmpo_app.backup.remotes import open_remote
        from dmpo_app.backup.startup import claim_and_restore, release_claim
        from dmpo_app.server.wiring import home_lock
        from dmpo_app.store.store import DATABASE_NAME, utc_now

        settings = context.load_settings()
        backup_url = url or settings.backup.url
        if backup_url is None:
            raise SetupError("there is no backup to store to; give a URL or set DMPO_BACKUP__URL")
        if not (settings.home / DATABASE_NAME).is_file():
            raise SetupError(f"{settings.home} has no database to back up")
        own = backup_url == settings.backup.url
        if own:  # a running studio ships there itself, and a second claim would stop it
            stack.enter_context(home_lock(settings, "dmpo backup"))
        remote = open_remote(backup_url)
        claim = claim_and_restore(settings.home, remote, handover_seconds=0, now=utc_now)
        scratch = SCRATCH if own else "backup-elsewhere"
        uploader = BackupUploader(settings.home, remote, claim, settings.backup, now=utc_now, scratch=scratch)
        stack.callback(uploader.close)
        uploader.upload_changes()
        release_claim(remote, claim)
        out.print(f"{settings.home} is stored at {remote.url}", highlight=False)


def restore(
    context: StudioContext,
    url: Annotated[str, typer.Argument(help="Where the backup is")],
    folder: Annotated[Path, typer.Argument(help="The home to restore into; it must not have a database")],
    snapshot: Annotated[str | None, typer.Option(help="That one and no other; `list` names them")] = None,
    log: Annotated[bool, typer.Option(help="With what changed after the snapshot")] = True,
) -> None:
    """Bring a home back from a backup: the newest snapshot that is whole, its log, and every file.

    The backup is only read, and whoever writes to it goes on.
    """
    log_to_terminal(logging.WARNING)
    with exit_on_error():
        from dmpo_app.backup.remotes import open_remote
        from dmpo_app.backup.restoring import restore as restore_home
        from dmpo_app.backup.snapshots import snapshot_names

        context.call_on_close(make_files_private())
        remote = open_remote(url)
        if snapshot == "list":
            for name in snapshot_names(remote):
                out.print(name, highlight=False)
            return
        result = restore_home(remote, folder, snapshot=snapshot, with_log=log, on_progress=_say)
        if result is None:
            raise NotFoundError(f"there is no snapshot at {remote.url}")
        for fault in result.faults:
            console.print(f"[yellow]warning:[/] {fault}", highlight=False)
        rebuilt = result.rebuilt
        changes = f"{rebuilt.num_deltas} of {rebuilt.num_logged} logged changes"
        out.print(
            f"{folder}: {result.votes} votes and {result.num_files} files, from {rebuilt.manifest.name} with {changes}",
            highlight=False,
        )
        raise typer.Exit(1 if result.faults else 0)


def verify(
    context: StudioContext,
    url: Annotated[str | None, typer.Option(help=_WHERE, show_default=False)] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended")] = False,
) -> None:
    """Check a home: the database, every file by its hash, versions, counts, what nothing names; and its backup.

    Ends with 1 when something is wrong and was not mended. What is merely superfluous is shown and does not count.
    Pairs whose images are damaged are out of the pool from then on, and back in it once the files are whole. Versions
    that learned from votes which were taken back since are named; they are no fault of the home.
    """
    log_to_terminal(logging.WARNING)
    with exit_on_error():
        from dmpo_app.backup.remotes import open_remote
        from dmpo_app.backup.restoring import IssueKind, find_taken_back, mark_damage, repair_home, verify_backup
        from dmpo_app.backup.restoring import verify as verify_home

        settings = context.load_settings()
        backup_url = url or settings.backup.url
        remote: Remote | None = None if backup_url is None else open_remote(backup_url)
        with progress() as bar:
            task = bar.add_task("checking files", total=None)
            report = verify_home(settings.home, on_progress=lambda done, of: bar.update(task, completed=done, total=of))
        issues = report.issues
        out.print(f"{settings.home}: {report.votes} votes, {report.num_files} files", highlight=False)
        if remote is not None and (about_backup := verify_backup(remote)) is not None:
            issues = [*issues, about_backup]
        num_unrepaired = 0
        outcomes = repair_home(settings.home, issues, remote) if repair else [(finding, "") for finding in issues]
        for finding, outcome in outcomes:
            is_repaired = outcome and not outcome.startswith("not ")
            harmless = finding.kind in (IssueKind.LEFTOVER, IssueKind.ORPHAN)
            num_unrepaired += not is_repaired and not harmless
            colour = "green" if is_repaired else "yellow" if harmless else "red"
            out.print(
                f"[{colour}]{finding.kind.value}[/]  {finding.description}{f': {outcome}' if outcome else ''}",
                highlight=False,
            )
        can_mark = settings.database is None and settings.files_url is None
        if can_mark and not any(finding.kind is IssueKind.DATABASE for finding in issues):
            for pair in mark_damage(settings.home, issues) or ():
                effect = "is out of the pool" if pair.lost == "images" else "is trained on once it is encoded again"
                out.print(
                    f"[yellow]pair[/]  {pair.pair_id} ({escape(pair.prompt)}) has lost {pair.lost} and {effect}",
                    highlight=False,
                )
            for version in find_taken_back(settings.home) or ():
                out.print(f"[yellow]version[/]  {_describe(version)}", highlight=False)
        if not issues:
            out.print("everything is whole", highlight=False)
        raise typer.Exit(1 if num_unrepaired else 0)


def _describe(version: TakenBack) -> str:
    """A version that holds votes taken back, in words, with what becomes of it."""
    votes = "a vote" if version.votes == 1 else f"{version.votes} votes"
    outlook = "is not live; nothing later starts from it"
    if version.is_live:
        outlook = "is live until the next version is published; `dmpo train` trains one without them now"
    return f"{version.version} of {escape(version.base_source)} learned from {votes} taken back since, and {outlook}"


def _say(words: str) -> None:
    console.print(words, highlight=False, style="dim")
