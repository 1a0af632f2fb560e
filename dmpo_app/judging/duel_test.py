"""The always-valid test of a candidate against another version by judgements of duels, clusters and a cap in it.

A player bets against "people prefer neither". The money, the e-value, is 1 at the start; if the claim is true, the
chance that it ever reaches 1 / a is at most a (Ville 1939), however often one looks and whenever one stops (Ramdas et
al., Game-theoretic statistics and safe anytime-valid inference, 2023). One player bets on the candidate, one on the
other version; each has half of the level, so both kinds of error together stay below it.

A judgement x (+1 the candidate, -1 the other version) of weight w in [0, 1], fixed before x is known, multiplies the
money of a player who believes in a share p by (2 p)^(w (1 + x) / 2) (2 (1 - p))^(w (1 - x) / 2), whose mean is at most
1 where x is a fair coin: the players need only V = sum of w and T = sum of w x. Each spreads the money over several p,
`ALTERNATIVES`. The 20 judgements of a person are not 20 independent ones; the weights see to that, see `next_weight`.

A tie bets nothing and changes nothing. Half a win for both would be as valid, but would cost the players money for each
tie (2 sqrt(p (1 - p)) < 1) and prove nothing to them: the test is about those who do prefer one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmpo_app.domain.judging import DuelTest, Judgement, Verdict
from dmpo_app.domain.vote import Question
from dmpo_app.labeling.quality.vote_weights import cap_factors

Floats = NDArray[np.float64]

ALTERNATIVES = (0.56, 0.62, 0.7, 0.8)
"""The shares of people for the candidate that the players believe in, and their money on each."""
STAKES = (0.2, 0.2, 0.4, 0.2)
PRIOR_CORRELATION = 0.2
"""The correlation of two judgements in one cluster before anything is known of it, and how many pairs that is worth."""
PRIOR_PAIRS = 20.0
MIN_CORRELATION = 0.02
MAX_MORE = 2000
"""The largest number of judgements that is still named as missing."""


@dataclass(frozen=True, slots=True)
class DuelRules:
    """The rules of a test.

    level: the chance of a wrong verdict, both kinds together. max_annotator_share: the cap. few_people_share: where
    there are fewer annotators than the cap needs, but three at least, one weighs at most so many times an equal share.
    """

    level: float = 0.05
    max_annotator_share: float = 0.05
    few_people_share: float = 1.5

    @property
    def threshold(self) -> float:
        """The e-value that is a verdict."""
        return 2 / self.level

    def is_crowd(self, num_annotators: int) -> bool:
        """Tell if there are enough annotators for the cap."""
        return num_annotators * self.max_annotator_share >= 1

    def share_limit(self, num_annotators: int) -> float:
        """The share that one of so many annotators may have when they judge."""
        if self.is_crowd(num_annotators):
            return self.max_annotator_share
        return 1.0 if num_annotators < 3 else min(1.0, self.few_people_share / num_annotators)


DEFAULT_RULES = DuelRules()


def log_e_value(weight: ArrayLike, balance: ArrayLike) -> Floats:
    """The logarithm of the money of the player who bets on the candidate, of any shape.

    Args:
        weight: V, the sum of the weights; balance: T, the sum of w x. The other player's money is that at -T.
    """
    total, lead = np.asarray(weight, np.float64)[..., None], np.asarray(balance, np.float64)[..., None]
    shares = np.array(ALTERNATIVES)
    gains = (total + lead) / 2 * np.log(2 * shares) + (total - lead) / 2 * np.log(2 * (1 - shares)) + np.log(STAKES)
    money: Floats = np.logaddexp.reduce(gains, axis=-1)
    return money


@dataclass(slots=True)
class _Cluster:
    """An annotator or a prompt: its judgements so far, their sum, their weights, and the sum of w x."""

    count: int = 0
    total: float = 0.0
    weight: float = 0.0
    balance: float = 0.0


@dataclass(slots=True)
class _Clusters:
    """All annotators, or all prompts, and how alike the judgements in one of them have been.

    products, pairs: over all pairs of judgements in one cluster, the sum of x_i x_j, and their number.
    """

    by_key: dict[int | str, _Cluster] = field(default_factory=dict)
    products: float = 0.0
    pairs: int = 0

    def correlation(self, count: int, total: float) -> float:
        """The correlation rho within clusters: the mean product in one cluster beyond that between two, with a prior.

        Args:
            count, total: of all judgements, how many and the sum of x. While all are in one cluster there is nothing to
                compare with, and what they agree on is laid to the cluster.
        """
        products_between = (total**2 - count) / 2 - self.products
        pairs_between = count * (count - 1) / 2 - self.pairs
        chance = max(0.0, products_between / (pairs_between + PRIOR_PAIRS))
        excess = PRIOR_PAIRS * PRIOR_CORRELATION + self.products - self.pairs * chance
        return min(1.0, max(MIN_CORRELATION, excess / (PRIOR_PAIRS + self.pairs)))

    def cluster(self, key: int | str) -> _Cluster:
        return self.by_key.setdefault(key, _Cluster())

    def add(self, key: int | str, x: float, weight: float) -> None:
        cluster = self.cluster(key)
        self.products += x * cluster.total
        self.pairs += cluster.count
        cluster.count += 1
        cluster.total += x
        cluster.weight += weight
        cluster.balance += weight * x


@dataclass(slots=True)
class DuelBets:
    """The bets on a stream of judgements: the weights that were given and their balance.

    share_limit: the share of all weight that one annotator may have, beyond their first judgement. is_crowd: annotators
    are a sample of people in general; else they are all there is, and only prompts are clusters.
    """

    is_crowd: bool
    share_limit: float
    weight: float = 0.0
    balance: float = 0.0
    _count: int = 0
    _total: float = 0.0
    _annotators: _Clusters = field(default_factory=_Clusters)
    _prompts: _Clusters = field(default_factory=_Clusters)

    def next_weight(self, annotator_id: int, prompt: str) -> float:
        """The weight of the next judgement, from what is known before it.

        With W_a and W_q the weights that this annotator and this prompt have had, and rho their correlations so far:

            w = 1 - 2 (rho_a W_a + rho_q W_q), at least 0, and at most 1 + share_limit V - W_a

        Then w^2 + 2 w (rho_a W_a + rho_q W_q) = w: the variance of T grows by w where judgements are so correlated, as
        it would by w independent ones. An annotator's weight tends to 1 / (2 rho_a), whatever they do: 2.5 where two
        judgements of a person agree in 60 of 100 cases instead of 50.
        """
        annotator, known_prompt = self._annotators.cluster(annotator_id), self._prompts.cluster(prompt)
        weight = 1 - 2 * self._prompts.correlation(self._count, self._total) * known_prompt.weight
        if self.is_crowd:
            weight -= 2 * self._annotators.correlation(self._count, self._total) * annotator.weight
        return min(1.0, max(0.0, min(weight, 1 + self.share_limit * self.weight - annotator.weight)))

    def add(self, annotator_id: int, prompt: str, x: float) -> None:
        """Take in a judgement, x = 1 for the candidate, -1 for the other version."""
        weight = self.next_weight(annotator_id, prompt)
        self.weight += weight
        self.balance += weight * x
        self._count += 1
        self._total += x
        self._annotators.add(annotator_id, x, weight)
        self._prompts.add(prompt, x, weight)

    def states(self, max_share: float) -> list[tuple[float, float]]:
        """(V, T) as they are, and in a crowd also with nobody above `max_share` of V; the evidence is the lesser one.

        The first makes the test valid at every look, the second keeps the cap as annotators come and go: to lower the
        exponent of an annotator's judgements keeps their mean below 1.
        """
        plain = (self.weight, self.balance)
        if not self.is_crowd or self.weight == 0:
            return [plain]
        annotators = list(self._annotators.by_key.values())
        weights = np.array([annotator.weight for annotator in annotators])
        factors = cap_factors(weights, max_share)
        capped = float(factors @ weights), float(factors @ np.array([annotator.balance for annotator in annotators]))
        return [plain, capped]

    def evidence(self, max_share: float) -> tuple[float, float]:
        """The logarithms of the e-values that the candidate is better, and that it is worse."""
        weight, balance = np.array(self.states(max_share)).T
        return float(log_e_value(weight, balance).min()), float(log_e_value(weight, -balance).min())


def compare_by_duels(
    judgements: Sequence[Judgement],
    *,
    candidate: int,
    other: int,
    rules: DuelRules = DEFAULT_RULES,
    question: Question = Question.OVERALL,
) -> DuelTest:
    """Test a candidate against another version by the judgements of their duels, in the order they were given.

    Others among `judgements` are left out. The test is computed anew from the judgements that stand: one that was taken
    back is as if it had not been given. That is valid as long as nobody takes back by which side it was for, and blind
    duels see to it; who could strike judgements by their outcome could prove anything.
    """
    scores = [
        (one.annotator_id, one.prompt, 2 * one.score - 1 if one.version_a == candidate else 1 - 2 * one.score)
        for one in judgements
        if {one.version_a, one.version_b} == {candidate, other} and one.question is question
    ]
    # Of those who prefer one: people who only tied would switch the cap on for a few.
    num_annotators = len({annotator_id for annotator_id, _, x in scores if x != 0})
    bets = DuelBets(rules.is_crowd(num_annotators), rules.share_limit(num_annotators))
    for annotator_id, prompt, x in scores:
        if x != 0:
            bets.add(annotator_id, prompt, x)
    log_threshold = math.log(rules.threshold)
    better, worse = bets.evidence(rules.max_annotator_share)
    more_needed = [_more_needed(*state, len(scores), log_threshold) for state in bets.states(rules.max_annotator_share)]
    return DuelTest(
        verdict=verdict_from(better, worse, log_threshold),
        num_judgements=len(scores),
        num_preferring=sum(x > 0 for _, _, x in scores),
        num_ties=sum(x == 0 for _, _, x in scores),
        num_annotators=num_annotators,
        num_prompts=len({prompt for _, prompt, _ in scores}),
        is_capped=bets.is_crowd,
        e_value_better=math.exp(min(better, 700.0)),
        e_value_worse=math.exp(min(worse, 700.0)),
        more_needed=None if None in more_needed else max(number for number in more_needed if number is not None),
    )


def verdict_from(log_better: float, log_worse: float, log_threshold: float) -> Verdict:
    """The verdict that the evidence gives."""
    if log_better >= log_threshold:
        return Verdict.BETTER
    return Verdict.WORSE if log_worse >= log_threshold else Verdict.UNSURE


def _more_needed(weight: float, balance: float, num_judgements: int, log_threshold: float) -> int | None:
    """The judgements that are missing if they go on as they did, with as much weight each; None: over `MAX_MORE`."""
    if num_judgements == 0 or balance == 0:
        return None
    more = np.arange(MAX_MORE + 1)
    growth = 1 + more / num_judgements
    is_enough = log_e_value(weight * growth, abs(balance) * growth) >= log_threshold
    return int(is_enough.argmax()) if is_enough.any() else None
