"""Phases and turns that a thread announces, the limits of each, and a supervisor that hears of them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dmpo_app.io.liveness import Activity, Heartbeat, advance, announce_through, phase
from dmpo_app.training.process.supervisor import LifeSigns


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be put forward."""
    seconds = [100.0]
    monkeypatch.setattr("dmpo_app.io.liveness.time.monotonic", lambda: seconds[0])
    return seconds


def let_pass(activity: Activity, now: list[float], seconds: float) -> None:
    """Let time pass, with a heartbeat every second."""
    end = now[0] + seconds
    while now[0] < end:
        now[0] = min(end, now[0] + 1)
        activity.heartbeat()


def turn(activity: Activity, now: list[float], name: str, seconds: float) -> None:
    activity.begin_turn(name)
    let_pass(activity, now, seconds)


def test_a_step_may_take_ten_times_the_longest_one_and_never_less_than_the_floor(now: list[float]) -> None:
    activity = Activity("loading", stall_seconds=5.0, phase_seconds=600.0)
    turn(activity, now, "training", 0.125)
    assert activity.heartbeat().limit == 600.0, "the first one, of which nothing is known"
    turn(activity, now, "training", 3.0)
    assert activity.heartbeat() == Heartbeat("training", 3.0, 5.0)
    turn(activity, now, "training", 0.125)
    assert activity.heartbeat().limit == pytest.approx(30.0)
    turn(activity, now, "waiting", 1000.0)
    assert activity.heartbeat().limit == 600.0, "of another kind of turn nothing is known yet"


def test_a_phase_amid_a_step_has_its_own_limit_and_counts_for_nothing_in_the_steps(now: list[float]) -> None:
    activity = Activity("loading", stall_seconds=5.0, phase_seconds=600.0)
    turn(activity, now, "training", 1.0)
    turn(activity, now, "training", 2.0)
    with activity.in_phase("evaluating"):
        let_pass(activity, now, 400.0)
        assert activity.heartbeat() == Heartbeat("evaluating", 400.0, 600.0)
        with activity.in_phase("compiling"):
            assert activity.name == "compiling"
        assert activity.heartbeat() == Heartbeat("evaluating", 0.0, 600.0)
    assert activity.heartbeat() == Heartbeat("training", 0.0, 10.0)
    turn(activity, now, "training", 0.0)
    assert activity.heartbeat().limit == 10.0


def test_a_machine_that_was_frozen_has_taken_no_time(now: list[float]) -> None:
    activity = Activity("loading", stall_seconds=5.0, phase_seconds=600.0)
    turn(activity, now, "training", 1.0)
    turn(activity, now, "training", 3.0)
    now[0] += 10_000.0
    assert activity.heartbeat().seconds == pytest.approx(5.0), "as far as anybody can tell from a beat that comes late"
    turn(activity, now, "training", 4.0)
    assert activity.heartbeat() == Heartbeat("training", 4.0, pytest.approx(50.0))  # type: ignore[arg-type]


def test_a_phase_that_fails_is_over(now: list[float]) -> None:
    activity = Activity("loading", phase_seconds=600.0)
    with pytest.raises(OSError, match="no network"), activity.in_phase("downloading"):
        raise OSError("no network")
    assert activity.name == "loading"


def test_threads_announce_what_they_do_to_those_who_listen_to_them_alone() -> None:
    heard, unheard = Activity("waiting"), Activity("waiting")

    def work(activity: Activity | None) -> str:
        if activity is not None:
            announce_through(activity)
        with phase("downloading a model"):
            name = heard.name
        advance("training")
        return name

    with ThreadPoolExecutor(1) as mine, ThreadPoolExecutor(1) as other:
        assert other.submit(work, None).result() == "waiting"
        assert mine.submit(work, heard).result() == "downloading a model"
    assert (heard.name, unheard.name) == ("training", "waiting")


@pytest.mark.parametrize("line", ["ready\n", "", "beat\n", "beat 1 2\n", "beat one 2 x\n", "beats 1 2 x\n", "beat  \n"])
def test_what_is_no_heartbeat_is_none(line: str) -> None:
    assert Heartbeat.from_line(line) is None


def test_a_heartbeat_survives_its_line_with_any_words() -> None:
    for words in ("training", "downloading a/b c", "évaluer 1 2 3"):
        beat = Heartbeat(words, 1.25, 60.0)
        assert Heartbeat.from_line(beat.to_line()) == beat


def hear(signs: LifeSigns, seconds: float, limit: float) -> None:
    signs.hear(Heartbeat("training", seconds, limit).to_line())


def test_silence_is_told_early_and_ends_the_trainer_late() -> None:
    signs = LifeSigns(60.0)
    hear(signs, 0.0, 100.0)
    assert [signs.tick(1.0) for _ in range(15)] == [""] * 15
    assert signs.trouble == ""
    assert signs.tick(1.0) == ""
    assert signs.trouble == "the trainer has given no sign of life for 16 s"
    hear(signs, 0.0, 100.0)
    assert signs.trouble == "", "it is well again"
    ticks = [signs.tick(1.0) for _ in range(61)]
    assert ticks[:60] == [""] * 60
    assert "no sign of life" in ticks[60]


def test_a_supervisor_that_was_frozen_itself_does_not_blame_the_trainer() -> None:
    signs = LifeSigns(60.0)
    hear(signs, 0.0, 100.0)
    assert signs.tick(86_400.0) == ""
    assert signs.trouble == ""


def test_a_trainer_gets_time_to_start_whatever_the_limit_on_its_silence() -> None:
    signs = LifeSigns(2.0)
    assert [signs.tick(1.0) for _ in range(60)] == [""] * 60
    assert signs.trouble == ""


def test_a_step_beyond_its_limit_is_a_hang_though_the_heart_beats() -> None:
    signs = LifeSigns(60.0)
    hear(signs, 119.0, 120.0)
    assert signs.tick(1.0) == ""
    hear(signs, 121.0, 120.0)
    assert signs.tick(1.0) == "the trainer has got no further for 121 s (training)"
