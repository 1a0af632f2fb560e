"""The slow tests, measured: rewrites the second half of tests/slow_tests.txt.

    .venv/bin/python -m pytest -m "not browser" --durations=0 -vv tests > build/durations.txt
    .venv/bin/python scripts/slow_tests.py build/durations.txt

Files go in whole, the longest first, until what is left fits into BUDGET_SECONDS on two cores; then no single test of
what is left may take longer than LONGEST_SECONDS.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

LIST = Path(__file__).resolve().parent.parent / "tests" / "slow_tests.txt"
HEADING = "# By their time:"
BUDGET_SECONDS = 150.0
"""Of the tests' own time, over two processes; starting and importing take the rest of two minutes."""
LONGEST_SECONDS = 3.0
_LINE = re.compile(r"^\s*(\d+\.\d+)s (?:call|setup|teardown)\s+(tests/\S+\.py)::([^\[\s]+)")


def read_durations(text: str) -> dict[str, dict[str, float]]:
    """Seconds by file and test, all parameters and fixtures together."""
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in text.splitlines():
        if match := _LINE.match(line):
            seconds[match[2]][match[3]] += float(match[1])
    return seconds


def choose(seconds: dict[str, dict[str, float]], listed: tuple[str, ...]) -> list[str]:
    """The files and tests to leave out besides those `listed` by their kind."""
    left = {file: tests for file, tests in seconds.items() if not file.startswith(listed)}
    chosen = [f"{file}::{test}" for file, tests in left.items() for test, s in tests.items() if s > LONGEST_SECONDS]
    totals = {file: sum(s for s in tests.values() if s <= LONGEST_SECONDS) for file, tests in left.items()}
    for file in sorted(totals, key=lambda file: -totals[file]):
        if sum(totals.values()) <= BUDGET_SECONDS:
            break
        del totals[file]
        chosen = [*(name for name in chosen if not name.startswith(f"{file}::")), file]
    return sorted(chosen)


def main() -> None:
    """Rewrite the list by the durations of the files named."""
    by_kind, heading, _ = LIST.read_text(encoding="utf-8").partition(HEADING)
    listed = tuple(line for line in by_kind.splitlines() if line.startswith("tests/"))
    seconds = read_durations("\n".join(Path(name).read_text(encoding="utf-8") for name in sys.argv[1:]))
    lines = [f"{heading} written by scripts/slow_tests.py from the durations of a run. Everything below is replaced."]
    LIST.write_text(by_kind + "\n".join([*lines, *choose(seconds, listed)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
