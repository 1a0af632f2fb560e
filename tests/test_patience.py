import pytest

from tests.patience import wait_until


def test_a_wait_ends_when_its_condition_holds() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), "the third answer", pause=lambda _: None)
    assert next(answers, "nothing left") == "nothing left"


def test_a_wait_in_vain_fails_and_says_for_what() -> None:
    with pytest.raises(AssertionError, match="in vain until the sun rises in the west"):
        wait_until(lambda: False, "the sun rises in the west", seconds=0.01)
