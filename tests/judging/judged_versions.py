"""Versions published as a round would, and duels between them that people judge, for tests of judging."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dmpo_app.domain.judging import Evidence, NewDuel, NewVerdict, Verdict
from dmpo_app.domain.lineage import AdapterRef, BaseModelRef
from dmpo_app.domain.vote import Annotator, AssignmentRules, Choice, SubmittedVote
from dmpo_app.judging.service import JudgingService
from dmpo_app.settings import JudgingSettings
from dmpo_app.store import Store
from tests.store.store_data import HOUR, new_adapter, new_image, start_round

PROMPTS = [f"a held-out fox, number {number}" for number in range(30)]

ENOUGH = 12
"""Judgements of one person, all the same, that prove a version better."""


def judging(store: Store, base: BaseModelRef, mode: str) -> JudgingService:
    """The service in a mode."""
    return JudgingService(store, base, JudgingSettings.model_validate({"mode": mode}))


def publish(
    store: Store,
    base: BaseModelRef,
    *,
    is_held: bool = False,
    proof: NewVerdict | None = None,
    votes: Sequence[int] = (),
) -> AdapterRef:
    """One more version, trained on these votes from the live one."""
    token = store.lease.acquire(base, "publisher", lease_seconds=30)
    assert token is not None
    round_id = start_round(store, base, token, list(votes)).id
    folder = f"{store.adapters.next_version(base):05d}-aaaaaaaa"
    adapter = new_adapter(list(votes), folder_name=folder, parent=store.adapters.live_version(base))
    published = store.rounds.publish(round_id, adapter, token=token, is_held=is_held, proof=proof)
    store.lease.release(base, token)
    return published


def proof(verdict: Verdict, other_version: int, *, version: int = -1) -> NewVerdict:
    """A verdict of the held-out votes."""
    return NewVerdict(version, other_version, verdict, Evidence.HELD_OUT, {"held_out_votes": 100})


def judge(
    store: Store,
    base: BaseModelRef,
    annotator: Annotator,
    better: int,
    worse: int,
    *,
    count: int = ENOUGH,
    study_id: int | None = None,
) -> list[int]:
    """Have an annotator prefer one version in so many new duels, those compared now or of a study; their votes."""

    def add(number: int) -> None:
        prompt = PROMPTS[number % len(PROMPTS)]
        image_a, image_b = (
            new_image(prompt, 1, version=one, png=b"png %d" % one, latents=None) for one in (better, worse)
        )
        store.duels.add(base, NewDuel(prompt, image_a, image_b))

    with ThreadPoolExecutor(8) as pool:  # whose writes share their commits
        list(pool.map(add, range(count)))
    votes: list[int] = []
    while len(votes) < count:
        issued = store.assignments.issue(
            base,
            annotator.id,
            10,
            rng=random.Random(5),
            lifetime=HOUR,
            rules=AssignmentRules(assignments_per_pair=100, duels_only=True, study_id=study_id),
        ).result()
        assert issued, "the duels are of versions that are not compared now"
        submitted = []
        for shown in issued:
            left = store.images.get(shown.left_image_id).provenance.adapter_version
            choice = SubmittedVote(Choice.LEFT if left == better else Choice.RIGHT)
            submitted.append(store.votes.submit(shown.id, annotator.id, choice, 10))
        votes += [one.result().vote_id for one in submitted]
    return votes
