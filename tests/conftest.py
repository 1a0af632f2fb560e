"""The marker `slow`, from the list tests/slow_tests.txt; torch's threads; which process runs which test.

With `-m "not slow"` files listed whole are not imported.
"""

import gc
import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

# One thread of torch here and in the processes that are started from here: with one a core, two processes of tests
# wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FAST = "not slow"
LIST = Path(__file__).parent / "slow_tests.txt"
FORKING = "tests/hosting/zerogpu/"
"""These tests fork the process that they run in to train in it, which torch refuses where a backward pass has been."""


STORES = "empty_homes"
"""The fixture that all stores come from, on either database."""


def fixtures_of(item: pytest.Item) -> tuple[str, ...]:
    """The names of all fixtures that a test has."""
    return tuple(getattr(item, "fixturenames", ()))


def slow_prefixes() -> tuple[str, ...]:
    """Folders (ending in a slash), files and single tests."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line)


PREFIXES = slow_prefixes()


def is_slow(node_id: str) -> bool:
    """True for a test that is listed, by itself (with all its parameters) or with its file or folder."""
    return any(
        node_id == prefix or node_id.startswith(prefix if prefix.endswith("/") else (f"{prefix}::", f"{prefix}["))
        for prefix in PREFIXES
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow tests and put them first, so that no process is left alone with a long one at the end.

    Before them come those that need a process in which nothing was trained. Of the tests on PostgreSQL those stay that
    have a store: the others do what they do on SQLite.
    """
    if os.environ.get("DMPO_TEST_DATABASE") == "postgresql":
        config.hook.pytest_deselected(items=[item for item in items if STORES not in fixtures_of(item)])
        items[:] = [item for item in items if STORES in fixtures_of(item)]
    slow = [
        item
        for item in items
        if is_slow(item.nodeid) or any(item.get_closest_marker(kind) for kind in ("browser", "soak"))
    ]
    for item in slow:
        item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (not item.nodeid.startswith(FORKING), item.get_closest_marker("slow") is None))


def pytest_collection_finish() -> None:
    """Look no more for garbage in what is imported by now: see tests/imports_settled.py."""
    gc.collect()
    gc.freeze()


class SlowFilesWhole(LoadScopeScheduling):  # type: ignore[misc]
    """Schedule a file that is listed whole as one, for what its tests share, and the tests of others one by one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if is_slow(file) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> SlowFilesWhole:
    """Replace the scheduler that `--dist` names."""
    config.option.loadscopereorder = False  # by the number of tests; a single one may take longer than fifty
    return SlowFilesWhole(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for files and folders that are slow as a whole, where only the others are asked for."""
    if config.option.markexpr != FAST:
        return None
    path = collection_path.relative_to(config.rootpath).as_posix()
    return True if path in PREFIXES or f"{path}/" in PREFIXES else None
