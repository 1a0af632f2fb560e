"""Parser processes: plain values come back in batches, limits end them, and nothing of theirs reaches their parent."""

import itertools
import operator
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import BadInputError, StudioError, UnreadableFileError
from dmpo_app.parsing.children import ParserChild, child_environment
from dmpo_app.parsing.limits import MAX_NESTING, measure
from dmpo_app.settings import PROJECT_ROOT
from tests.parsing.seeking import seek
from tests.patience import wait_until

LIMITS = ParserLimits()
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits of resources are Linux's")


def test_values_come_back_and_items_come_in_order() -> None:
    with ParserChild("a.json", LIMITS) as child:
        assert child.call(len, b"four") == 4
        assert list(itertools.islice(child.stream(itertools.count), 1000)) == list(range(1000))
    moments = [datetime(2026, 1, 2, 3, 4, 5, 6, UTC), Decimal("0.1"), b"\0", "\ud800", [{"a": None}], float("inf")]
    with ParserChild("a.json", LIMITS) as child:
        assert list(child.stream(iter, moments)) == moments
        assert child.call(len, b"again") == 5


@LINUX
@pytest.mark.parametrize("command", [("/no/such/python",), (sys.executable, "-c", "")])
def test_a_child_that_does_not_start_is_told_of_and_leaves_nothing_open(command: tuple[str, ...]) -> None:
    own = psutil.Process()
    num_open, children = own.num_fds(), set(own.children())
    for _ in range(3):
        with pytest.raises(StudioError, match="start"):
            ParserChild("a.json", LIMITS, command=command)
    assert own.num_fds() <= num_open
    assert set(own.children()) <= children


@LINUX
def test_a_reply_that_is_no_reply_is_an_error_that_names_the_file() -> None:
    """As of a child whose parser was taken over."""
    replies = (b"\x80\x05K\x00K\x00R.", b"\x80\x05}]s.", b"\x80\x05(K\x01e.")
    for reply in replies:
        code = f"import os, sys; os.write(1, {pickle.dumps(('ready',))!r} + {reply!r}); sys.stdin.read()"
        with pytest.raises(UnreadableFileError, match=r"a\.json"):
            ParserChild("a.json", LIMITS, command=(sys.executable, "-c", code)).call(len, "")


@LINUX
def test_a_child_that_seeks_its_first_row_is_waited_for_as_long_as_it_gets_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    with ParserChild("a.json", ParserLimits(wait_seconds=2, cpu_seconds=2)) as child:
        assert list(child.stream(seek, 4.0)) == ["found"]


def test_an_object_of_another_class_comes_back_as_text() -> None:
    with ParserChild("a.json", LIMITS) as child:
        answer: object = child.call(Path, "a/b")
        assert answer == "a/b"


def test_an_error_on_purpose_keeps_its_class_and_any_other_names_the_file() -> None:
    with ParserChild("a.json", LIMITS) as child:
        with pytest.raises(BadInputError, match="nested deeper"):
            child.call(measure, _nested(MAX_NESTING + 1), LIMITS)
        with pytest.raises(UnreadableFileError, match=r"a\.json cannot be read .*invalid literal"):
            child.call(int, "no\x1b[2J number")
        assert child.call(int, "7") == 7


@LINUX
@pytest.mark.parametrize(
    ("function", "arguments", "limits", "said"),
    [
        (bytes, (8 << 30,), ParserLimits(memory_mb=1024), "1,024 MB of memory.*DMPO_PARSING__MEMORY_MB"),
        (sum, (range(10**13),), ParserLimits(cpu_seconds=1), "1 s of processor time.*DMPO_PARSING__CPU_SECONDS"),
        (time.sleep, (600,), ParserLimits(wait_seconds=1), "nothing for 1 s.*DMPO_PARSING__WAIT_SECONDS"),
        (bytes, (20 << 20,), ParserLimits(row_mb=1), "more than 1 MB.*DMPO_PARSING__ROW_MB"),
        (os.abort, (), LIMITS, "SIGABRT"),
        (operator.methodcaller("open", "xb"), (Path("/nowhere/at/all"),), LIMITS, "No such file"),
    ],
)
def test_a_limit_that_is_exceeded_is_named(
    function: Callable[..., Any], arguments: tuple[Any, ...], limits: ParserLimits, said: str
) -> None:
    with ParserChild("theirs.parquet", limits) as child, pytest.raises(UnreadableFileError, match=said) as problem:
        child.call(function, *arguments)
    assert "theirs.parquet" in str(problem.value)


@LINUX
def test_a_child_writes_no_more_than_it_may(tmp_path: Path) -> None:
    target = tmp_path / "large"
    with (
        ParserChild("a.zip", LIMITS, max_written=1 << 20) as child,
        pytest.raises(UnreadableFileError, match="too large"),
    ):
        child.call(Path.write_bytes, target, bytes(2 << 20))
    assert target.stat().st_size <= 1 << 20


def test_an_item_over_the_limit_is_named_by_its_number() -> None:
    rows = ["small", "x" * (2 << 20)]
    with (
        ParserChild("a.json", ParserLimits(row_mb=1)) as child,
        pytest.raises(UnreadableFileError, match=r"row 2 of a\.json is larger than 1 MB"),
    ):
        list(child.stream(iter, rows))


def test_what_a_child_answers_is_loaded_as_plain_values_alone(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    taken_over = f"""
import pickle, sys
class Attack:
    def __reduce__(self):
        return open, ({str(mark)!r}, "w")
pickle.dump(("ready",), sys.stdout.buffer); sys.stdout.buffer.flush()
sys.stdin.buffer.read(1)
pickle.dump(("value", Attack()), sys.stdout.buffer); sys.stdout.buffer.flush()
sys.stdin.buffer.read()
"""
    with (
        ParserChild("a.json", LIMITS, command=(sys.executable, "-c", taken_over)) as child,
        pytest.raises(UnreadableFileError, match="is no plain value"),
    ):
        child.call(len, b"")
    assert not mark.exists()


def test_no_secret_is_in_the_environment_and_the_hub_has_its_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "DMPO_ADMIN_TOKEN", "AWS_SECRET_ACCESS_KEY", "DMPO_DATABASE_URL"):
        monkeypatch.setenv(name, "a-secret")
    with ParserChild("a.json", LIMITS) as child:
        assert child.call(os.getenv, "HF_TOKEN") is None
        assert child.call(os.getenv, "PATH") == os.environ["PATH"]
    assert [name for name, value in child_environment(for_hub=True).items() if value == "a-secret"] == ["HF_TOKEN"]
    assert "a-secret" not in child_environment(for_hub=False).values()


def test_a_child_that_does_not_start_says_so() -> None:
    with pytest.raises(StudioError, match=r"did not start \(exit status 3\)"):
        ParserChild("a.json", LIMITS, command=(sys.executable, "-c", "raise SystemExit(3)"))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    "work", ["time.sleep, 600", "sum, range(10**13)", "next(child.stream(itertools.count)); time.sleep"]
)
def test_a_child_at_work_ends_with_a_killed_parent(work: str) -> None:
    script = f"""
import itertools, time
from dmpo_app.domain.limits import ParserLimits
from dmpo_app.parsing.children import ParserChild
child = ParserChild("a.json", ParserLimits())
print("started", flush=True)
{work}
"""
    parent = psutil.Popen([sys.executable, "-c", script], stdout=-1)
    assert parent.stdout.readline() == b"started\n"
    (child,) = psutil.Process(parent.pid).children()
    time.sleep(0.2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child has ended too")


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value
