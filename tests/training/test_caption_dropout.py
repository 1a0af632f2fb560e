"""Captions dropped in a share of the slots: which ones is fixed, policy and reference see the same."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.loading import Encoder, load_denoiser
from dmpo_app.diffusion.lora import LoraSpec, attach, load_state_in_place
from dmpo_app.domain.lineage import RoundStatus
from dmpo_app.errors import RoundFailedError
from dmpo_app.io.processes import StopFlag
from dmpo_app.settings import RenderSettings, Settings, TrainerSettings
from dmpo_app.training.data.dataset import PairDataset, build_dataset
from dmpo_app.training.data.encoding import EMPTY_PROMPTS_FOLDER, EmptyPrompt
from dmpo_app.training.data.training_examples import Example, compute_slot, drops_caption, noise_for_slot
from dmpo_app.training.process.trainer_process import run_trainer
from dmpo_app.training.reference.denoising_errors import PairErrors
from dmpo_app.training.reference.prefetch import ReferencePrefetcher
from dmpo_app.training.reference.reference_cache import ReferenceCache, numerics_key, reference_folder
from dmpo_app.training.rounds.round_runner import SliceOutcome
from tests.adapters import random_adapter
from tests.tiny_models.cases import Case, one_a_family
from tests.tolerance import assert_latents_agree
from tests.training.training_studio import FAST, TrainingStudio, assert_equal, twin_of, weights_of

Work = Callable[[float], None]
DROPPING = FAST.model_copy(update={"caption_dropout": 0.5})
DRAWS = [Example(0, 1), Example(1, 3), Example(2, 6), Example(3, 7)]


def never() -> NoReturn:
    raise AssertionError("the empty prompt was asked for")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The base models whose encoders were loaded."""
    loaded: list[str] = []
    load = Encoder.load

    def noting(source: str, **options: Any) -> Encoder:
        loaded.append(source)
        return load(source, **options)

    monkeypatch.setattr(Encoder, "load", noting)
    return loaded


@pytest.fixture
def empty_prompt(studio: TrainingStudio) -> EmptyPrompt:
    return EmptyPrompt.from_home(
        studio.home, str(studio.source), studio.base.fingerprint, device="cpu", dtype="float32"
    )


def dataset_of(studio: TrainingStudio) -> PairDataset:
    return build_dataset(studio.store.votes.training_votes(studio.base), studio.store.files, alpha=0.05)


def by_hand(denoiser: Denoiser, data: PairDataset, prompts: list[Conditioning]) -> Tensor:
    """Errors of DRAWS on images a and b, (B, 2), each pair with a prompt of its own."""
    ids = [data.pair_ids[draw.pair] for draw in DRAWS]
    slots = [
        compute_slot(pair, draw.slot, num_slots=8, num_timesteps=1000, seed=0)
        for pair, draw in zip(ids, DRAWS, strict=True)
    ]
    latents = torch.cat(data.latents([draw.pair for draw in DRAWS], denoiser.device))
    noise = torch.stack([noise_for_slot(slot, tuple(latents.shape[1:])) for slot in slots]).repeat(2, 1, 1, 1)
    timesteps = torch.tensor([slot.timestep for slot in slots]).repeat(2)
    conditioning = {name: torch.stack([prompt[name] for prompt in prompts * 2]) for name in prompts[0]}
    prediction = denoiser.predict(denoiser.add_noise(latents, noise, timesteps), timesteps, conditioning)
    residual = prediction - denoiser.training_target(latents, noise, timesteps)
    return residual.square().mean((1, 2, 3)).view(2, -1).T


def test_the_share_is_right_the_same_at_every_call_and_alike_at_all_noise_levels() -> None:
    pairs, num_slots = 2000, 8
    for share in (0.0, 0.1, 0.5, 1.0):
        dropped = [
            [drops_caption(pair, slot, share=share, seed=3) for slot in range(num_slots)] for pair in range(pairs)
        ]
        assert dropped == [
            [drops_caption(pair, slot, share=share, seed=3) for slot in range(num_slots)] for pair in range(pairs)
        ]
        per_slot = torch.tensor(dropped).float().mean(0)
        assert float((per_slot - share).abs().max()) <= 4 * (share * (1 - share) / pairs) ** 0.5
    # Where in its stratum a slot lies says nothing of its caption either.
    timesteps = torch.tensor(
        [compute_slot(pair, 0, num_slots=1, num_timesteps=1000, seed=3).timestep for pair in range(pairs)]
    )
    without = torch.tensor([drops_caption(pair, 0, share=0.5, seed=3) for pair in range(pairs)])
    difference = timesteps[without].float().mean() - timesteps[~without].float().mean()
    assert abs(float(difference)) < 4 * 1000 / 12**0.5 * (4 / pairs) ** 0.5
    other_seed = [drops_caption(pair, 0, share=0.5, seed=4) for pair in range(pairs)]
    assert other_seed != without.tolist()


def test_what_a_smaller_share_drops_a_larger_one_drops_too() -> None:
    draws = [(pair, slot) for pair in range(50) for slot in range(8)]
    small, large = ({draw for draw in draws if drops_caption(*draw, share=share, seed=0)} for share in (0.2, 0.6))
    assert small < large


@pytest.fixture
def voted(tmp_path: Path, case: Case, folder: Path) -> Iterator[TrainingStudio]:
    """Four votes, with prompts in the shapes that the model's own encoders give."""
    studio = TrainingStudio.open(tmp_path / "family", folder)
    encoder = Encoder.load(str(folder), device="cpu", dtype="float32", resolution=None)
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.conditioning("a fox").items()}
    studio.latent_shape, studio.conditioning = case.latent_shape, shapes
    studio.add_pairs(4)
    studio.vote(4)
    yield studio
    studio.store.close()


@one_a_family
def test_errors_with_dropped_captions_are_those_of_the_empty_prompt_in_every_family(
    case: Case, folder: Path, voted: TrainingStudio
) -> None:
    encoder = Encoder.load(str(folder), device="cpu", dtype="float32", resolution=None)
    guided_from = encoder.family.unconditional(encoder.pipeline)
    empty = encoder.conditioning("") if guided_from is None else guided_from
    assert ("pooled_prompt_embeds" in empty) == (case.family != "stable_diffusion")
    denoiser = replace(
        load_denoiser(str(folder), device="cpu", dtype="float32"),
        empty_prompt=EmptyPrompt(voted.home / "empty.safetensors", lambda: encoder),
    )
    data = dataset_of(voted)
    share = 1.0 if case.name in ("sd2-zero-snr", "flux-schnell") else 0.5
    settings = FAST.model_copy(update={"caption_dropout": share})
    errors = PairErrors.from_settings(denoiser, data, ReferenceCache(), settings)
    dropped = [drops_caption(data.pair_ids[draw.pair], draw.slot, share=share, seed=0) for draw in DRAWS]
    assert any(dropped)
    assert all(dropped) == (share == 1.0)
    own = data.conditioning([draw.pair for draw in DRAWS], denoiser.device)
    prompts: list[Conditioning] = [
        empty if drop else {name: tensor[index] for name, tensor in own.items()} for index, drop in enumerate(dropped)
    ]
    with torch.no_grad():
        reference = by_hand(denoiser, data, prompts)
        assert_latents_agree(errors.reference_errors(DRAWS), reference)
        spec = LoraSpec.from_settings(FAST, denoiser.family)
        adapter = random_adapter(denoiser.module, 1, spec)
        load_state_in_place(attach(denoiser.module, spec, seed=0), adapter.tensors)
        terms = errors.terms(DRAWS)
        policy = by_hand(denoiser, data, prompts)
    assert_latents_agree(torch.stack([terms.policy_a, terms.policy_b], 1), policy)
    assert not torch.allclose(policy, reference, rtol=1e-3)


def test_a_fresh_adapter_has_margin_zero_exactly_with_and_without_captions(
    studio: TrainingStudio, denoiser: Denoiser, empty_prompt: EmptyPrompt
) -> None:
    studio.add_pairs(4)
    studio.vote(4)
    denoiser = replace(denoiser, empty_prompt=empty_prompt)
    attach(denoiser.module, LoraSpec.from_settings(FAST, denoiser.family), seed=0)
    errors = PairErrors.from_settings(denoiser, dataset_of(studio), ReferenceCache(), DROPPING)
    assert (errors.terms(DRAWS).margin(2000.0) == 0).all()


def test_where_nothing_is_dropped_the_empty_prompt_is_not_asked_for_and_no_bit_changes(
    studio: TrainingStudio, denoiser: Denoiser, tmp_path: Path
) -> None:
    studio.add_pairs(6)
    studio.vote(6)
    twin = twin_of(studio, tmp_path)
    for home, its_denoiser in ((studio, denoiser), (twin, replace(denoiser, empty_prompt=never))):
        round_id, token = home.start()
        assert home.run(its_denoiser, round_id, token) is SliceOutcome.FINISHED
    assert_equal(weights_of(twin), weights_of(studio))
    twin.store.close()


def test_references_know_the_share_and_those_filled_before_a_round_are_the_rounds(
    studio: TrainingStudio, denoiser: Denoiser, empty_prompt: EmptyPrompt
) -> None:
    studio.add_pairs(6)
    studio.vote(6)
    denoiser = replace(denoiser, empty_prompt=empty_prompt)
    data = dataset_of(studio)

    def key(share: float) -> str:
        settings = FAST.model_copy(update={"caption_dropout": share})
        return numerics_key(denoiser, data, settings, base_fingerprint=studio.base.fingerprint, micro_pairs=4)

    assert len({key(0.0), key(0.5), key(1.0)}) == 3
    filler = ReferencePrefetcher(studio.store, studio.base, denoiser, DROPPING)
    while filler.fill():
        pass
    filled = ReferenceCache.load(reference_folder(studio.home), key(0.5))
    assert len(filled) == 6 * DROPPING.slots_per_pair
    round_id, token = studio.start(settings=DROPPING)
    studio.run(denoiser, round_id, token)
    used = ReferenceCache.load(reference_folder(studio.home), key(0.5))
    assert_equal(used.to_tensors(), filled.to_tensors())
    without = PairErrors.from_settings(denoiser, data, ReferenceCache(), FAST)
    draws = [Example(pair, slot) for pair in range(6) for slot in range(8)]
    without.compute_references(draws, batch_pairs=4)
    for draw in draws:
        pair_id = data.pair_ids[draw.pair]
        kept = torch.allclose(without.reference_errors([draw])[0], torch.tensor(filled.get(pair_id, draw.slot)))
        assert kept is not drops_caption(pair_id, draw.slot, share=0.5, seed=0)


def test_a_round_taken_up_again_ends_on_the_same_bytes(
    studio: TrainingStudio, denoiser: Denoiser, empty_prompt: EmptyPrompt, tmp_path: Path
) -> None:
    studio.add_pairs(8)
    studio.vote(8)
    twin = twin_of(studio, tmp_path)
    denoiser = replace(denoiser, empty_prompt=empty_prompt)
    for home, slices in ((studio, (600.0,)), (twin, (0.0, 0.0, 600.0))):
        round_id, token = home.start(settings=DROPPING)
        assert home.run(denoiser, round_id, token, slices=slices) is SliceOutcome.FINISHED
    assert_equal(weights_of(twin), weights_of(studio))
    twin.store.close()


def test_a_denoiser_without_the_empty_prompt_is_refused(studio: TrainingStudio, denoiser: Denoiser) -> None:
    studio.add_pairs(2)
    studio.vote(2)
    with pytest.raises(RoundFailedError, match="without an encoded empty prompt"):
        PairErrors.from_settings(denoiser, dataset_of(studio), ReferenceCache(), DROPPING)


def test_the_file_is_made_once_for_each_precision_and_read_as_it_was_written(
    studio: TrainingStudio, empty_prompt: EmptyPrompt, loads: list[str]
) -> None:
    first = empty_prompt()
    assert_equal(dict(empty_prompt()), dict(first))
    assert len(loads) == 1
    encoder = Encoder.load(str(studio.source), device="cpu", dtype="float32", resolution=None)
    assert_equal(dict(first), dict(encoder.conditioning("")))
    half = EmptyPrompt.from_home(
        studio.home, str(studio.source), studio.base.fingerprint, device="cpu", dtype="bfloat16"
    )
    assert half()["prompt_embeds"].dtype is torch.bfloat16
    assert len(list((studio.home / EMPTY_PROMPTS_FOLDER).glob("*.safetensors"))) == 2


@pytest.fixture
def work(studio: TrainingStudio) -> Work:
    """A trainer that runs until the round at hand has ended."""

    def num_finished() -> int:
        return sum(state.finished_at is not None for state in studio.store.rounds.list(studio.base))

    def until_trained(share: float) -> None:
        stopping = StopFlag()
        settings = Settings(
            home=studio.home,
            base_model=str(studio.source),
            min_votes=4,
            round=FAST.model_copy(update={"num_steps": 2, "caption_dropout": share}),
            trainer=TrainerSettings(poll_seconds=0.02, num_threads=1),
            render=RenderSettings(device="cpu"),
        )
        finished = num_finished()

        def watch() -> None:
            while not stopping.wait(0.05):
                if num_finished() > finished:
                    stopping.set()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            run_trainer(settings, owner="tests", stop_flag=stopping)
        finally:
            stopping.set()
            watcher.join()

    return until_trained


def test_a_trainer_loads_encoders_once_and_never_where_all_captions_are_kept(
    studio: TrainingStudio, work: Work, loads: list[str]
) -> None:
    studio.add_pairs(12)
    studio.vote(4)
    work(0.0)
    assert loads == []
    assert not (studio.home / EMPTY_PROMPTS_FOLDER).exists()
    for _ in range(2):
        studio.vote(4)
        work(0.3)
        assert loads == [str(studio.source)]
    configs = [state.config["settings"]["caption_dropout"] for state in studio.store.rounds.list(studio.base)]
    assert sorted(configs) == [0.0, 0.3, 0.3]


def test_a_round_begun_with_dropped_captions_goes_on_under_settings_that_keep_them(
    studio: TrainingStudio, work: Work, loads: list[str]
) -> None:
    studio.add_pairs(6)
    studio.vote(6)
    round_id, _ = studio.start(settings=DROPPING)
    work(0.0)
    assert studio.store.rounds.get(round_id).status in (RoundStatus.PUBLISHED, RoundStatus.REFUSED)
    assert loads == [str(studio.source)]
