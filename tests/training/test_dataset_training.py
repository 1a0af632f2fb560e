"""From a data set to an adapter: encoded once, nothing guessed, every family, no step further than asked for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from dmpo_app.diffusion.loading import Encoder
from dmpo_app.errors import BadInputError, HomeLockedError, SetupError
from dmpo_app.exchange.readers.source import RowsSource
from dmpo_app.exchange.readers.table_formats import PickAPicReader
from dmpo_app.settings import RenderSettings, RoundSettings, Settings
from dmpo_app.training.data.encoding import EncodedPairs, EncodingCounts, encode_pairs
from dmpo_app.training.offline.dataset_run import TrainingCallback, fill_defaults, split_pairs
from dmpo_app.training.offline.dataset_training import TrainingOutcome, TrainingRequest, _lock_output, train_on_dataset
from tests.exchange.readers.preference_files import PICK_A_PIC_V2, mixed_rows, pick_a_pic_row
from tests.tiny_models.cases import Case, one_a_family

QUICK: dict[str, Any] = {"num_steps": 6, "batch_pairs": 3, "evaluate_every": 3, "slots_per_pair": 4}


def source_of(rows: Any) -> RowsSource:
    return RowsSource(rows, name="rows", columns=PICK_A_PIC_V2.names)


def settings_for(folder: Path, **round_settings: Any) -> Settings:
    return Settings(
        base_model=str(folder),
        round=RoundSettings(**{**QUICK, **round_settings}),
        render=RenderSettings(device="cpu", dtype="float32"),
    )


class Recording(TrainingCallback):
    """Asks to stop after so many batches or steps; None: never."""

    def __init__(self, *, batches: int | None = None, steps: int | None = None) -> None:
        self.batches, self.steps = batches, steps
        self.seen: list[EncodingCounts] = []
        self.trained_steps: list[int] = []

    def should_stop(self) -> bool:
        return len(self.seen) == self.batches or len(self.trained_steps) == self.steps

    def on_encoded(self, counts: EncodingCounts, limit: int | None) -> None:
        self.seen.append(counts)

    def on_step(self, step: int, steps: int, result: Any) -> None:
        self.trained_steps.append(step)


def train(folder: Path, output: Path, rows: Any = None, **options: Any) -> TrainingOutcome:
    watcher = options.pop("watcher", None)
    limit = options.pop("limit", None)
    request = TrainingRequest(output, limit, options.pop("resolution", None), encode_batch=2)
    source = source_of(mixed_rows() if rows is None else rows)
    return train_on_dataset(source, PickAPicReader(), settings_for(folder, **options), request, watcher)


@one_a_family
def test_every_family_learns_from_a_data_set_and_plain_diffusers_loads_the_adapter(
    case: Case, folder: Path, tmp_path: Path
) -> None:
    outcome = train(folder, tmp_path / "out", resolution=case.resolution, held_out_share=0.4, seed=1)
    assert outcome.folder is not None
    assert outcome.counts.to_dict() == {
        "rows": 12,
        "pairs": 9,
        "ties": 2,
        "left_out": {"broken image": 1, "identical images": 1, "no label": 1},
    }
    manifest = json.loads((outcome.folder / "manifest.json").read_text())
    assert manifest["counts"] == outcome.counts.to_dict()
    assert manifest["dataset"]["format"] == "pick-a-pic"
    assert manifest["config"]["settings"]["beta"] > 0
    assert 0 < outcome.metrics["held_out_pairs"] < 9
    assert 0 <= outcome.metrics["held_out_accuracy"] <= 1
    pipeline = DiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.load_lora_weights(outcome.folder)
    assert pipeline.get_active_adapters()


def test_a_training_that_is_stopped_anywhere_ends_in_the_same_adapter(tiny_model: Path, tmp_path: Path) -> None:
    whole = train(tiny_model, tmp_path / "whole")
    assert whole.folder is not None
    for batches, steps in ((1, None), (3, None), (None, 1), (None, 4)):
        stopped = train(tiny_model, tmp_path / "pieces", watcher=Recording(batches=batches, steps=steps))
        assert stopped.folder is None
    watcher = Recording()
    resumed = train(tiny_model, tmp_path / "pieces", watcher=watcher)
    assert resumed.folder is not None
    assert watcher.seen == []
    assert watcher.trained_steps == [6]
    assert resumed.folder.name == whole.folder.name
    assert resumed.counts == whole.counts


def test_captions_are_dropped_with_the_empty_prompt_of_the_encoding_pass_and_resumed_to_the_same_adapter(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = Encoder.load

    def noting(source: str, **options: Any) -> Encoder:
        loads.append(source)
        return load(source, **options)

    monkeypatch.setattr(Encoder, "load", noting)
    whole = train(tiny_model, tmp_path / "whole", caption_dropout=0.5)
    assert len(loads) == 1
    for steps in (1, 3):
        stopped = train(tiny_model, tmp_path / "pieces", caption_dropout=0.5, watcher=Recording(steps=steps))
        assert stopped.folder is None
    resumed = train(tiny_model, tmp_path / "pieces", caption_dropout=0.5)
    assert len(loads) == 2
    assert whole.folder is not None
    assert resumed.folder is not None
    assert resumed.folder.name == whole.folder.name, "the name holds the hash of the weights"

    kept = train(tiny_model, tmp_path / "encoded before")
    assert len(loads) == 3
    assert not list((tmp_path / "encoded before").rglob("empty-prompt*"))
    dropped = train(tiny_model, tmp_path / "encoded before", caption_dropout=0.5)
    assert len(loads) == 4, "for the empty prompt alone"
    assert kept.folder is not None
    assert dropped.folder is not None
    assert dropped.folder.name.split("-")[1] == whole.folder.name.split("-")[1] != kept.folder.name.split("-")[1]
    assert len(list((tmp_path / "encoded before").rglob("empty-prompt*"))) == 1


def test_a_finished_training_is_not_done_again_and_another_gets_the_next_number(
    tiny_model: Path, tmp_path: Path
) -> None:
    first = train(tiny_model, tmp_path)
    watcher = Recording()
    assert train(tiny_model, tmp_path, watcher=watcher) == first
    assert (watcher.seen, watcher.trained_steps) == ([], [])
    other = train(tiny_model, tmp_path, objective="ipo", watcher=watcher)
    assert watcher.seen == []
    assert len(watcher.trained_steps) == 6
    assert other.folder is not None
    assert other.folder.name.startswith("00002-")


def test_with_a_limit_no_row_is_read_that_is_not_needed(tiny_model: Path, tmp_path: Path) -> None:
    read: list[int] = []

    class Endless:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for index in range(10**9):
                read.append(index)
                yield pick_a_pic_row(index) if index != 1 else pick_a_pic_row(1, label_0=None)

    outcome = train(tiny_model, tmp_path, rows=Endless(), limit=5, num_steps=1)
    assert (outcome.counts.rows, outcome.counts.pairs) == (6, 5)
    assert len(read) == 6
    again = train(tiny_model, tmp_path, rows=Endless(), limit=5, num_steps=1)
    assert again == outcome
    assert len(read) == 6
    assert train(tiny_model, tmp_path, rows=Endless(), limit=7, num_steps=1).counts.rows == 8
    assert len(read) == 6 + 8, "six rows of a generator are passed over, two are new"


def test_every_prompt_and_every_image_is_encoded_once(tiny_model: Path, tmp_path: Path) -> None:
    prompts: list[str] = []
    num_images: list[int] = []

    class Counting(Encoder):
        __slots__ = ()

        def conditioning(self, prompt: str) -> Any:
            prompts.append(prompt)
            return Encoder.conditioning(self, prompt)

        def latents(self, images: Any) -> torch.Tensor:
            num_images.append(len(images))
            return Encoder.latents(self, images)

    def load() -> Encoder:
        return Counting.load(str(tiny_model), device="cpu", dtype="float32", resolution=None)

    source = source_of([pick_a_pic_row(index) for index in range(12)])
    for stop_after in (2, 3, 99):
        calls = iter(range(stop_after))
        encode_pairs(
            source,
            PickAPicReader(),
            EncodedPairs(tmp_path),
            load,
            batch_pairs=2,
            limit=None,
            should_stop=lambda calls=calls: next(calls, None) is None,  # type: ignore[misc]
        )
    assert sum(num_images) == 24
    assert max(num_images) == 4
    assert sorted(prompts) == sorted({pick_a_pic_row(index)["caption"] for index in range(5)})
    assert EncodedPairs(tmp_path).counts.pairs == 12


def test_nothing_to_learn_from_is_said_with_the_reasons(tiny_model: Path, tmp_path: Path) -> None:
    rows = [pick_a_pic_row(0, jpg_0=None, jpg_1=None), pick_a_pic_row(1, label_0=None)]
    with pytest.raises(BadInputError, match=r"2 rows were read and left out: 1 x no image bytes, 1 x no label"):
        train(tiny_model, tmp_path, rows=rows)


def test_an_objective_there_is_not_is_refused_before_anything_is_encoded(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="ppo"):
        train(tiny_model, tmp_path, objective="ppo")
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time_trains_into_a_folder(tiny_model: Path, tmp_path: Path) -> None:
    with _lock_output(tmp_path), pytest.raises(HomeLockedError, match="another process"):
        train(tiny_model, tmp_path)


def test_usual_values_follow_the_number_of_pairs_and_what_is_set_stays() -> None:
    small = fill_defaults(RoundSettings(), 100)
    assert (small.num_steps, small.held_out_share, small.evaluate_every) == (80, 0.2, 20)
    middle = fill_defaults(RoundSettings(), 10_000)
    assert middle.num_steps == 1186  # (10,000 - 512) pairs in batches of 8
    assert middle.held_out_share == pytest.approx(0.0512)
    large = fill_defaults(RoundSettings(), 1_000_000)
    assert (large.num_steps, large.evaluate_every) == (2000, 100)
    given = RoundSettings(num_steps=7, held_out_share=0.5, evaluate_every=3)
    assert fill_defaults(given, 1_000_000) == given


def test_prompts_are_split_and_never_pairs_of_one_prompt() -> None:
    prompts = [f"prompt {index % 40}" for index in range(200)]
    train_pairs, held_out = split_pairs(prompts, RoundSettings(held_out_share=0.3))
    assert sorted(train_pairs + held_out) == list(range(200))
    assert held_out
    assert not {prompts[number] for number in train_pairs} & {prompts[number] for number in held_out}
