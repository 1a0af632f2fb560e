"""The unit tests of the page's scripts, tests/javascript/*.test.js, run by the node that Playwright brings."""

import re
import subprocess
from pathlib import Path

import playwright
import pytest

FOLDER = Path(__file__).parent.parent / "javascript"
FILES = sorted(FOLDER.glob("*.test.js"))
NODE = next((Path(playwright.__file__).parent / "driver").glob("node*"))
_PASSED = re.compile(r"^# pass (\d+)$", re.MULTILINE)


def run(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(NODE), "--test", "--test-reporter=tap", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def declared_tests(path: Path) -> int:
    return len(re.findall(r"^test\(", path.read_text(encoding="utf-8"), re.MULTILINE))


def failures(output: str) -> str:
    """The failed tests of a TAP report, each with its assertion and place."""
    blocks = re.split(r"^(?=(?:not )?ok |# )", output, flags=re.MULTILINE)
    return "\n".join(block.rstrip() for block in blocks if block.startswith("not ok"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.removesuffix(".test.js"))
def test_the_scripts_do_what_their_unit_tests_say(path: Path) -> None:
    done = run(path)
    assert done.returncode == 0, failures(done.stdout) or done.stdout + done.stderr
    passed = _PASSED.search(done.stdout)
    assert passed is not None
    assert int(passed[1]) == declared_tests(path) > 0


def test_a_unit_test_that_fails_is_reported_by_its_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.test.mjs"
    broken.write_text(
        'import assert from "node:assert/strict";\nimport { test } from "node:test";\n'
        'test("one is one", () => assert.equal(1, 1));\ntest("one is two", () => assert.equal(1, 2));\n'
    )
    done = run(broken)
    assert done.returncode != 0
    assert "one is two" in failures(done.stdout)
    assert "one is one" not in failures(done.stdout)
