import numpy as np
import pytest

from dmpo_app.domain.judging import Judgement, Majority, StudyAnswer
from dmpo_app.domain.vote import Question
from dmpo_app.judging.study import summarize_study, table_rows


def _answers(
    pair_id: int, scores: str, *, prompt: str | None = None, question: Question = Question.OVERALL
) -> list[StudyAnswer]:
    """Answers of one person each about versions 2 (a) and 1 (b): "aab=" is two for a, one for b, a tie."""
    values = {"a": 1.0, "b": 0.0, "=": 0.5}
    return [
        StudyAnswer(pair_id, Judgement(annotator, prompt or f"prompt {pair_id}", 2, 1, values[letter], question))
        for annotator, letter in enumerate(scores)
    ]


def test_a_pair_goes_to_the_answer_that_most_people_gave() -> None:
    answers = [
        answer
        for pair, scores in enumerate(("aab", "abb", "ab", "a==", "aa=", "ab="))
        for answer in _answers(pair, scores)
    ]
    study = summarize_study(answers, version_a=2, version_b=1)
    majorities = [pair.majority for pair in study.pairs]
    assert majorities == [Majority.A, Majority.B, Majority.TIE, Majority.TIE, Majority.A, Majority.TIE]
    (result,) = study.results
    assert (result.wins, result.losses, result.ties) == (2, 1, 3)
    assert result.win_rate == pytest.approx(2 / 3)
    assert result.win_rate_ties_half == pytest.approx(3.5 / 6)
    assert (result.num_pairs, result.num_answers, result.num_annotators) == (6, 17, 3)


def test_the_other_side_sees_the_study_turned_round() -> None:
    answers = [answer for pair, scores in enumerate(("aab", "aab", "abb")) for answer in _answers(pair, scores)]
    one = summarize_study(answers, version_a=2, version_b=1).results[0]
    other = summarize_study(answers, version_a=1, version_b=2).results[0]
    assert (one.wins, one.losses) == (other.losses, other.wins) == (2, 1)
    assert one.alpha == other.alpha


def test_each_question_has_its_own_result() -> None:
    answers = [*_answers(1, "aaa"), *_answers(1, "bbb", question=Question.FIT)]
    study = summarize_study(answers, version_a=2, version_b=1)
    assert [(result.question, result.win_rate) for result in study.results] == [
        (Question.OVERALL, 1),
        (Question.FIT, 0),
    ]


def test_the_first_of_several_answers_of_a_person_counts() -> None:
    answers = [*_answers(1, "aab"), StudyAnswer(1, Judgement(0, "prompt 1", 2, 1, 0.0))]
    assert summarize_study(answers, version_a=2, version_b=1).pairs[0].num_a == 2


def test_pairs_of_one_prompt_tell_less_than_as_many_prompts() -> None:
    each = [answer for pair in range(60) for answer in _answers(pair, "aaa" if pair % 3 else "bbb")]
    shared = [
        answer
        for pair in range(60)
        for answer in _answers(pair, "aaa" if pair // 10 % 3 else "bbb", prompt=f"prompt {pair // 10}")
    ]
    narrow = summarize_study(each, version_a=2, version_b=1).results[0]
    wide = summarize_study(shared, version_a=2, version_b=1).results[0]
    assert narrow.low is not None
    assert wide.low is not None
    assert narrow.win_rate == wide.win_rate
    assert wide.low < narrow.low - 0.1


def test_agreement_is_one_where_all_agree_and_near_nothing_by_chance() -> None:
    agreed = [answer for pair in range(20) for answer in _answers(pair, "aaa" if pair % 2 else "bbb")]
    assert summarize_study(agreed, version_a=2, version_b=1).results[0].alpha == pytest.approx(1)
    rng = np.random.default_rng(1)
    random = [answer for pair in range(200) for answer in _answers(pair, "".join(rng.choice(list("ab="), 3)))]
    result = summarize_study(random, version_a=2, version_b=1).results[0]
    assert result.alpha is not None
    assert abs(result.alpha) < 0.1
    assert result.alpha_low is not None
    assert result.alpha_low < result.alpha


def test_a_study_of_ties_alone_has_no_win_rate() -> None:
    result = summarize_study(_answers(1, "==="), version_a=2, version_b=1).results[0]
    assert (result.ties, result.win_rate, result.low, result.win_rate_ties_half) == (1, None, None, 0.5)


def test_the_table_has_a_row_for_each_pair_and_question() -> None:
    answers = [*_answers(7, "ab="), *_answers(3, "aa"), *_answers(3, "b", question=Question.APPEAL)]
    rows = table_rows(summarize_study(answers, version_a=2, version_b=1))
    assert [(row["question"], row["pair_id"], row["majority"]) for row in rows] == [
        ("overall", 3, "a"),
        ("overall", 7, "tie"),
        ("appeal", 3, "b"),
    ]
    assert rows[1] == {
        "question": "overall",
        "pair_id": 7,
        "prompt": "prompt 7",
        "version_a": 2,
        "version_b": 1,
        "num_a": 1,
        "num_b": 1,
        "num_ties": 1,
        "majority": "tie",
    }


def test_answers_about_other_versions_are_left_out() -> None:
    other = StudyAnswer(1, Judgement(5, "prompt 1", 3, 1, 1.0))
    study = summarize_study([*_answers(1, "aab"), other], version_a=2, version_b=1)
    assert study.pairs[0].num_a == 2
