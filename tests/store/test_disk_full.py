import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmpo_app.domain.lineage import BaseModelRef, ImageKind
from dmpo_app.domain.vote import Annotator, Assignment, Choice
from dmpo_app.errors import StorageFullError
from dmpo_app.store import Store
from tests.store.store_data import FINGERPRINT, broken_counts, integrity_of, issue, new_image, new_pair
from tests.store.store_fixtures import sqlite_only

pytestmark = sqlite_only

REFUSALS = 50


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[bool], None]]:
    """A disk of 4 MB at `folder` and a switch that fills it up or makes room.

    A real one in memory where we may mount it; elsewhere a limit on the size of any file, which the system answers
    with another error number to the same effect.
    """
    folder.mkdir()
    if _mounted(folder):
        try:
            yield lambda full: _fill(folder / "ballast", full)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
    else:
        before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            yield lambda full: resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if full else before, hard))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
            signal.signal(signal.SIGXFSZ, ignored)


def _mounted(folder: Path) -> bool:
    command = shutil.which("mount")
    if command is None:
        return False
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    return subprocess.run([command, *options], capture_output=True, check=False).returncode == 0


def _fill(ballast: Path, full: bool) -> None:
    if not full:
        ballast.unlink()
        return
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(os.urandom(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def vote_until_full(store: Store, assignments: Sequence[Assignment], anna: Annotator) -> list[int]:
    """The votes that were acknowledged before 50 were refused; a small one may still fit after one that did not."""
    acknowledged: list[int] = []
    refusals = 0
    for assignment in assignments:
        try:
            acknowledged.append(store.votes.record(assignment.id, anna.id, Choice.LEFT, 10).vote_id)
        except StorageFullError:
            refusals += 1
        if refusals == REFUSALS:
            return acknowledged
    raise AssertionError(f"of {len(assignments)} votes {refusals} were refused by a disk that has no room for them")


def test_a_full_disk_refuses_loses_nothing_and_recovers_by_itself(tmp_path: Path) -> None:
    home = tmp_path / "disk"
    with small_disk(home) as set_full:
        with Store.open(home) as store:
            base = store.models.register("pocket", "stable-diffusion", FINGERPRINT)
            store.pairs.add_many(base, [new_pair(number) for number in range(520)])
            anna = store.annotators.ensure("anna")
            opened = issue(store, base, anna, 500)
            set_full(True)
            acknowledged = vote_until_full(store, opened, anna)
            with pytest.raises(StorageFullError):
                store.images.add(base, new_image(png=os.urandom(20_000)), ImageKind.RENDER)
            assert store.votes.count(base) == len(acknowledged), "reading goes on"
            set_full(False)
            assert store.votes.count(base) == len(acknowledged)
            open_now = issue(store, base, anna, 500)[0]
            acknowledged.append(store.votes.record(open_now.id, anna.id, Choice.TIE, 10).vote_id)
            stored = store.images.add(base, new_image(png=os.urandom(20_000)), ImageKind.RENDER)
            assert store.files.image_path(stored.sha256).stat().st_size == 20_000
        assert integrity_of(home) == "ok"
        with Store.open(home) as store:
            assert store.votes.count(base) == len(acknowledged)
            assert broken_counts(store) == 0
            assert list((home / "tmp").iterdir()) == []


def test_a_database_at_its_size_limit_fails_the_whole_batch_and_goes_on(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(500)])
    store.database.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1").scalar())
    with pytest.raises(StorageFullError, match="Free some space"):
        issue(store, base, anna, 500)
    assert len(issue(store, base, anna, 500)) == 500, "on a fresh connection, which has no such limit"
