"""`make test-fast`: which tests it leaves out, and how they are chosen from measured durations."""

from scripts import slow_tests
from tests.conftest import PREFIXES, is_slow
from tests.studio_process import PROJECT_ROOT

REPORT = """
  40.00s call     tests/a/test_long.py::test_one[some-case]
 200.00s setup    tests/a/test_many.py::test_two
   2.00s call     tests/a/test_short.py::test_three
   2.50s call     tests/a/test_short.py::test_four[1]
   1.00s teardown tests/a/test_short.py::test_four[2]
   9.00s call     tests/browser/test_page.py::test_five
"""


def is_there(listed: str) -> bool:
    file, _, test = listed.partition("::")
    path = PROJECT_ROOT / file
    return path.exists() and (not test or f"def {test}(" in path.read_text(encoding="utf-8"))


def test_what_is_listed_is_there_and_slow_with_all_that_is_in_it() -> None:
    assert [name for name in PREFIXES if not is_there(name)] == []
    assert is_slow("tests/browser/test_labeling_page.py::test_anything[case]")
    assert is_slow("tests/test_kills.py::test_anything")
    assert not is_slow("tests/objective/test_dmpo_loss.py::test_anything")


def test_long_tests_are_left_out_and_long_files_until_the_rest_fits() -> None:
    seconds = slow_tests.read_durations(REPORT)
    assert slow_tests.choose(seconds, ("tests/browser/",)) == [
        "tests/a/test_long.py::test_one",
        "tests/a/test_many.py::test_two",
        "tests/a/test_short.py::test_four",
    ]
    many = {f"tests/test_{n}.py": {f"test_{m}": 2.5 for m in range(20 * n)} for n in (1, 2)}
    assert slow_tests.choose(many, ()) == []
    many["tests/test_3.py"] = {f"test_{m}": 2.5 for m in range(60)}
    assert slow_tests.choose(many, ()) == ["tests/test_3.py"]
