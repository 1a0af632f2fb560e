import random

import pytest
from scipy.special import logit

from dmpo_app.domain.judging import Board, Judgement
from dmpo_app.domain.vote import Question
from dmpo_app.judging.board import PRIOR_TIES, make_board


def _duels(version_a: int, version_b: int, wins: int, losses: int, ties: int = 0) -> list[Judgement]:
    """Judgements of ten people on thirty prompts."""
    scores = [1.0] * wins + [0.0] * losses + [0.5] * ties
    random.Random(version_a).shuffle(scores)
    return [Judgement(n % 10, f"prompt {n % 30}", version_a, version_b, score) for n, score in enumerate(scores)]


def _scores(board: Board) -> dict[int, float | None]:
    return {row.version: row.score for row in board.rows}


def test_two_versions_have_the_log_odds_of_their_duels() -> None:
    board = make_board(_duels(1, 0, 60, 30, 10), resamples=0)
    odds = (60 + 5 + PRIOR_TIES / 2) / (30 + 5 + PRIOR_TIES / 2)
    assert _scores(board)[1] == pytest.approx(logit(odds / (1 + odds)), abs=1e-4)
    assert _scores(board)[0] == 0
    assert board.rows[0].win_rate == pytest.approx(odds / (1 + odds), abs=1e-4)


def test_scores_follow_from_chains_of_duels() -> None:
    """Each version is preferred to the one before in three of four duels; versions 1 and 3 never met the base."""
    judgements = [*_duels(1, 0, 300, 100), *_duels(2, 1, 300, 100), *_duels(3, 2, 300, 100)]
    board = make_board(judgements, resamples=0)
    assert [row.version for row in board.rows] == [3, 2, 1, 0]
    scores = _scores(board)
    for version in (1, 2, 3):
        assert scores[version] == pytest.approx(version * logit(0.75), rel=0.02)


def test_the_side_of_a_version_does_not_matter() -> None:
    judgements = [*_duels(1, 0, 40, 20), *_duels(2, 1, 30, 20, 10)]
    turned = [
        Judgement(one.annotator_id, one.prompt, one.version_b, one.version_a, 1 - one.score) for one in judgements
    ]
    assert make_board(turned, resamples=50) == make_board(judgements, resamples=50)


def test_the_same_seed_gives_the_same_intervals() -> None:
    judgements = _duels(1, 0, 40, 20)
    assert make_board(judgements, resamples=100, seed=5) == make_board(judgements, resamples=100, seed=5)
    assert make_board(judgements, resamples=100, seed=5) != make_board(judgements, resamples=100, seed=6)


def test_judgements_of_few_people_tell_less_than_those_of_many() -> None:
    few = [Judgement(n % 4, f"prompt {n}", 1, 0, float(n % 4 < 3)) for n in range(200)]
    many = [Judgement(n, f"prompt {n}", 1, 0, float(n % 4 < 3)) for n in range(200)]
    (narrow, _), (wide, _) = make_board(many, resamples=100).rows, make_board(few, resamples=100).rows
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.low is not None
    assert wide.high is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_version_that_won_all_has_a_finite_score() -> None:
    board = make_board(_duels(1, 0, 20, 0), resamples=100)
    assert board.rows[0].version == 1
    assert board.rows[0].win_rate == pytest.approx(20.5 / 21, abs=1e-3)


def test_versions_that_no_chain_leads_to_are_said_so() -> None:
    board = make_board([*_duels(1, 0, 5, 3), *_duels(8, 9, 30, 10)], resamples=20)
    assert board.anchor == 0
    assert board.disconnected == (8, 9)
    assert [(row.version, row.score) for row in board.rows[2:]] == [(8, None), (9, None)]
    assert board.rows[2].num_judgements == 40


def test_without_the_base_the_oldest_version_is_the_anchor() -> None:
    board = make_board(_duels(5, 3, 10, 5), resamples=0)
    assert board.anchor == 3
    assert _scores(board)[3] == 0


def test_one_person_on_one_prompt_has_a_score_without_an_interval() -> None:
    board = make_board([Judgement(1, "a cat", 1, 0, 1.0)] * 3)
    assert board.rows[0].score is not None
    assert board.rows[0].low is None


def test_another_question_has_another_board() -> None:
    fit = [Judgement(1, "a cat", 1, 0, 1.0, Question.FIT)]
    assert make_board(fit) == Board((), None, 0, 0, 0)
    assert make_board(fit, question=Question.FIT).rows[0].version == 1
