"""Statistics of a human study between two versions: majorities, win rates with intervals, agreement, a table.

The unit is the pair of images; its answers are version a, version b, or a tie.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dmpo_app.domain.judging import Judgement, Majority, Study, StudyAnswer, StudyPair, StudyResult
from dmpo_app.domain.vote import Question
from dmpo_app.labeling.quality.agreement import alpha_interval
from dmpo_app.labeling.quality.quality_votes import Share, clustered_share
from dmpo_app.labeling.tables import csv_line, safe_cell

TABLE_COLUMNS = ("question", "pair_id", "prompt", "version_a", "version_b", "num_a", "num_b", "num_ties", "majority")


def summarize_study(answers: Sequence[StudyAnswer], *, version_a: int, version_b: int, seed: int = 0) -> Study:
    """Sum up the answers about two versions, question by question, from the side of version a.

    Of several answers of one annotator to one question about one pair the first counts. Answers about other versions
    are left out.
    """
    firsts: dict[tuple[Question, int, int], StudyAnswer] = {}
    for answer in answers:
        judgement = answer.judgement
        if {judgement.version_a, judgement.version_b} == {version_a, version_b}:
            firsts.setdefault((judgement.question, answer.pair_id, judgement.annotator_id), answer)
    results, pairs = [], []
    for question in Question:
        asked = [answer for (about, _, _), answer in firsts.items() if about is question]
        if asked:
            table = _table(question, asked, version_a)
            results.append(_result(question, asked, table, np.random.default_rng(seed)))
            pairs += table
    return Study(version_a, version_b, tuple(results), tuple(pairs))


def table_rows(study: Study) -> list[Mapping[str, str | int]]:
    """The pairs of a study as rows of a table, one for each pair and question."""
    return [
        {
            "question": pair.question.value,
            "pair_id": pair.pair_id,
            "prompt": pair.prompt,
            "version_a": study.version_a,
            "version_b": study.version_b,
            "num_a": pair.num_a,
            "num_b": pair.num_b,
            "num_ties": pair.num_ties,
            "majority": pair.majority.value,
        }
        for pair in study.pairs
    ]


def study_csv(study: Study) -> str:
    """The pairs of a study as CSV, inert in a spreadsheet."""
    lines = [csv_line(TABLE_COLUMNS)]
    for row in table_rows(study):
        lines.append(csv_line(safe_cell(str(row[name])) for name in TABLE_COLUMNS))
    return "".join(lines)


def _table(question: Question, answers: Sequence[StudyAnswer], version_a: int) -> list[StudyPair]:
    """The pairs in the order of their ids, with their answers counted."""
    counts: dict[int, Counter[Majority]] = {}
    prompts: dict[int, str] = {}
    for answer in answers:
        prompts[answer.pair_id] = answer.judgement.prompt
        counts.setdefault(answer.pair_id, Counter())[_preferred(answer.judgement, version_a)] += 1
    return [
        StudyPair(
            question=question,
            pair_id=pair_id,
            prompt=prompts[pair_id],
            num_a=counts[pair_id][Majority.A],
            num_b=counts[pair_id][Majority.B],
            num_ties=counts[pair_id][Majority.TIE],
            majority=_majority(counts[pair_id]),
        )
        for pair_id in sorted(counts)
    ]


def _preferred(judgement: Judgement, version_a: int) -> Majority:
    """The side of one judgement, as seen from `version_a`."""
    if judgement.score == 0.5:
        return Majority.TIE
    return Majority.A if (judgement.score > 0.5) == (judgement.version_a == version_a) else Majority.B


def _majority(counts: Mapping[Majority, int]) -> Majority:
    """The answer that more people gave than any other; a tie where there is none."""
    most = max(counts.values())
    leaders = [side for side, count in counts.items() if count == most]
    return leaders[0] if len(leaders) == 1 else Majority.TIE


def _result(
    question: Question, answers: Sequence[StudyAnswer], table: Sequence[StudyPair], rng: np.random.Generator
) -> StudyResult:
    majorities = [pair.majority for pair in table]
    wins, losses, ties = (majorities.count(side) for side in (Majority.A, Majority.B, Majority.TIE))
    rate = _win_rate(table)
    alpha = alpha_interval(np.array([[pair.num_a, pair.num_b, pair.num_ties] for pair in table], np.int64), rng)
    return StudyResult(
        question=question,
        num_pairs=len(table),
        num_prompts=len({pair.prompt for pair in table}),
        num_answers=len(answers),
        num_annotators=len({answer.judgement.annotator_id for answer in answers}),
        wins=wins,
        losses=losses,
        ties=ties,
        win_rate=rate.value,
        low=rate.low,
        high=rate.high,
        win_rate_ties_half=(wins + ties / 2) / len(table),
        alpha=alpha.value if alpha else None,
        alpha_low=alpha.low if alpha else None,
        alpha_high=alpha.high if alpha else None,
    )


def _win_rate(table: Sequence[StudyPair]) -> Share:
    """The share of pairs won, of those with a winner; the pairs of one prompt are not independent."""
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(pair.prompt for pair in table))}
    successes, trials = np.zeros(len(prompts), np.int64), np.zeros(len(prompts), np.int64)
    for pair in table:
        if pair.majority is not Majority.TIE:
            trials[prompts[pair.prompt]] += 1
            successes[prompts[pair.prompt]] += pair.majority is Majority.A
    return clustered_share(successes, trials)
