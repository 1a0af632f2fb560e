"""Votes become pairs with targets, split by prompt."""

from dataclasses import replace

import pytest
import torch

from dmpo_app.domain.lineage import TrainingVote
from dmpo_app.domain.vote import Choice, Outcome
from dmpo_app.errors import DamagedFileError, RoundFailedError
from dmpo_app.training.data.dataset import AutomaticEvidence, PairTensors, build_dataset, is_held_out, split_votes
from tests.training.training_studio import TrainingStudio

CPU = torch.device("cpu")


def for_a(a_on_left: bool) -> Choice:
    return Choice.LEFT if a_on_left else Choice.RIGHT


def for_b(a_on_left: bool) -> Choice:
    return Choice.RIGHT if a_on_left else Choice.LEFT


def test_one_row_a_pair_with_the_stored_tensors(studio: TrainingStudio) -> None:
    studio.add_pairs(3)
    studio.vote(3)
    dataset = build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)
    assert len(dataset) == 3
    assert dataset.prompts == ("prompt 0", "prompt 1", "prompt 2")
    latents_a, latents_b = dataset.latents([0, 1, 2], CPU)
    assert latents_a.shape == latents_b.shape == (3, 4, 8, 8)
    assert dataset.conditioning([0, 1, 2], CPU)["prompt_embeds"].shape == (3, 16, 16)
    assert latents_a.dtype == torch.float32
    assert (latents_a[:, 0].mean((1, 2)) > latents_b[:, 0].mean((1, 2))).all()  # a is the shifted one
    torch.testing.assert_close(dataset.targets, torch.full((3,), 0.95))


def test_the_target_follows_the_image_chosen_and_not_the_side_it_stood_on(studio: TrainingStudio) -> None:
    studio.add_pairs(8)
    studio.vote(8, choose=for_b)
    votes = studio.store.votes.training_votes(studio.base)
    dataset = build_dataset(votes, studio.store.files, alpha=0.1)
    torch.testing.assert_close(dataset.targets, torch.full((8,), 0.1))


def test_several_votes_on_a_pair_become_one_row_with_their_number_as_weight(studio: TrainingStudio) -> None:
    studio.add_pairs(2)
    for choose in (for_a, for_a, for_b):
        studio.vote(2, choose=choose)
    dataset = build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)
    assert len(dataset) == 2
    assert dataset.weights.tolist() == [3, 3]
    assert ((dataset.targets > 0.5) & (dataset.targets < 0.95)).all()


def test_skips_and_both_bad_are_not_trained_on_and_ties_ask_for_an_even_margin(studio: TrainingStudio) -> None:
    studio.add_pairs(6)
    answers = iter([Choice.SKIP, Choice.BOTH_BAD, Choice.TIE, Choice.TIE, Choice.LEFT, Choice.RIGHT])
    studio.vote(6, choose=lambda a_on_left: next(answers))
    dataset = build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)
    assert len(dataset) == 4
    assert (dataset.targets == 0.5).sum() == 2


def test_no_votes_are_a_failed_round_that_says_so(studio: TrainingStudio) -> None:
    with pytest.raises(RoundFailedError, match="no vote to train on"):
        build_dataset([], studio.store.files, alpha=0.05)


def test_a_missing_or_damaged_file_is_named(studio: TrainingStudio) -> None:
    studio.add_pairs(2)
    studio.vote(2)
    votes = studio.store.votes.training_votes(studio.base)
    path = studio.store.files.latents_path(votes[0].latents_a)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DamagedFileError, match="latents"):
        build_dataset(votes, studio.store.files, alpha=0.05).latents([0], CPU)
    assert not path.exists(), "it is moved aside"
    with pytest.raises(DamagedFileError, match=path.name):
        build_dataset(votes, studio.store.files, alpha=0.05).latents([0], CPU)


def test_tensors_are_read_when_a_batch_needs_them_and_the_last_used_are_kept(studio: TrainingStudio) -> None:
    studio.add_pairs(4)
    studio.vote(4)
    reads: list[str] = []

    class Counting:
        def read_latents(self, sha256: str) -> bytes:
            reads.append(sha256)
            return studio.store.files.read_latents(sha256)

        def read_embeds(self, sha256: str) -> bytes:
            return studio.store.files.read_embeds(sha256)

    dataset = build_dataset(studio.store.votes.training_votes(studio.base), Counting(), alpha=0.05)
    assert reads == []
    one_pair = 2 * 4 * 8 * 8 * 4
    tensors = PairTensors(Counting(), cache_bytes=2 * one_pair)
    for pair in (0, 1, 0, 1):
        tensors.latents([dataset.files[pair]], CPU)
    assert len(reads) == 4  # both pairs once
    tensors.latents([dataset.files[2]], CPU)
    tensors.latents([dataset.files[1]], CPU)
    assert len(reads) == 6  # the third, and the second is still there
    tensors.latents([dataset.files[0]], CPU)
    assert len(reads) == 8  # the first had to go


def test_images_of_two_sizes_do_not_make_a_batch(studio: TrainingStudio) -> None:
    studio.add_pairs(1)
    studio.latent_shape = (4, 4, 4)
    studio.add_pairs(1)
    studio.vote(2)
    dataset = build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)
    with pytest.raises(RoundFailedError, match="resolution"):
        dataset.latents([0, 1], CPU)


def test_an_annotators_weight_and_a_votes_strength_count(studio: TrainingStudio) -> None:
    studio.add_pairs(1)
    studio.vote(1)
    (vote,) = studio.store.votes.training_votes(studio.base)
    against = replace(vote, vote_id=2, annotator_id=99, outcome=Outcome.B)
    files = studio.store.files
    fair = build_dataset([vote, against], files, alpha=0.05)
    assert fair.targets.tolist() == pytest.approx([0.5])
    unequal = build_dataset([vote, against], files, alpha=0.05, annotator_weight=lambda who: 0.25 if who == 99 else 1.0)
    assert 0.5 < unequal.targets.item() < 0.95
    assert unequal.weights.tolist() == [1.25]
    slight = build_dataset([replace(vote, strength=0.5)], files, alpha=0.05)
    assert 0.5 < slight.targets.item() < 0.95


def test_scorers_are_mixed_into_judged_pairs_and_speak_alone_for_the_others(studio: TrainingStudio) -> None:
    studio.add_pairs(3)
    studio.vote(1)
    (vote,) = studio.store.votes.training_votes(studio.base)
    unjudged = studio.store.pairs.for_training(studio.base, unjudged=10)
    assert len(unjudged) == 2
    evidence = AutomaticEvidence(0.75, {vote.pair_id: 0.05, unjudged[0].id: 0.8, unjudged[1].id: 0.2}, unjudged)
    dataset = build_dataset([vote], studio.store.files, alpha=0.05, automatic=evidence)
    by_id = dict(
        zip(dataset.pair_ids, zip(dataset.targets.tolist(), dataset.weights.tolist(), strict=True), strict=True)
    )
    assert by_id[vote.pair_id] == (pytest.approx(0.75 * 0.95 + 0.25 * 0.05), 1.0)
    assert by_id[unjudged[0].id] == (pytest.approx(0.8), 0.25)
    assert by_id[unjudged[1].id] == (pytest.approx(0.2), 0.25)
    assert dataset.latents([0, 1, 2], CPU)[0].shape == (3, 4, 8, 8)


def test_a_prompt_stays_on_its_side_as_votes_come_in() -> None:
    prompts = [f"a {colour} cat number {n}" for colour in ("red", "blue") for n in range(200)]
    first = {prompt: is_held_out(prompt, share=0.2, seed=0) for prompt in prompts[:50]}
    later = {prompt: is_held_out(prompt, share=0.2, seed=0) for prompt in prompts}
    assert all(later[prompt] == side for prompt, side in first.items())
    assert 0.12 < sum(later.values()) / len(later) < 0.28
    assert later != {prompt: is_held_out(prompt, share=0.2, seed=1) for prompt in prompts}


def test_votes_on_one_prompt_are_all_on_one_side() -> None:
    votes = [vote_on(f"prompt {n % 10}", n) for n in range(60)]
    sides: dict[str, set[bool]] = {}
    for vote, (vote_id, held_out) in zip(votes, split_votes(votes, share=0.3, seed=3), strict=True):
        assert vote.vote_id == vote_id
        sides.setdefault(vote.prompt, set()).add(held_out)
    assert all(len(side) == 1 for side in sides.values())
    assert {True} in sides.values()
    assert {False} in sides.values()


def test_a_share_of_zero_holds_nothing_out_and_a_single_prompt_is_trained_on() -> None:
    votes = [vote_on("the only prompt", n) for n in range(5)]
    assert not any(held_out for _, held_out in split_votes(votes, share=0.0, seed=0))
    for seed in range(30):
        assert not any(held_out for _, held_out in split_votes(votes, share=0.9, seed=seed))


def vote_on(prompt: str, vote_id: int) -> TrainingVote:
    return TrainingVote(vote_id, vote_id, 1, prompt, Outcome.A, "a", "b", "c")
