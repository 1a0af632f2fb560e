"""`dmpo train --dataset` in two real processes: one adapter, one writer, and nobody is left waiting."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from dmpo_app.cli.main import app
from dmpo_app.cli.train_command import EXIT_STOPPED
from dmpo_app.settings import POCKET_MODEL
from dmpo_app.training.loop import trainer
from dmpo_app.training.loop.step import train_step
from dmpo_app.training.monitoring.early_stopping import StepResult
from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic
from tests.model_fixtures import NUM_THREADS
from tests.training.test_distributed import SECONDS, TOLERANCE, norm_of_difference, start_two
from tests.training.training_studio import assert_equal


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pick_a_pic(tmp_path / "train.parquet", [pick_a_pic_row(index) for index in range(16)])


def options(data: Path, model: Path, output: Path, *, steps: int = 6, caption_dropout: float = 0.0) -> list[str]:
    named = ["--dataset", str(data), "--base-model", str(model), "--output", str(output), "--steps", str(steps)]
    named += ["--batch-pairs", "4", "--held-out-share", "0.4", "--seed", "1"]
    settings = ["round.rank=2", "round.slots_per_pair=8", f"round.caption_dropout={caption_dropout}"]
    settings += ["round.evaluate_every=6"]
    settings += ["round.slice_seconds=0.2", f"trainer.num_threads={NUM_THREADS}", "render.device=cpu"]
    return [*named, *(word for setting in settings for word in ("--set", setting))]


def adapter_of(output: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    (folder,) = output.glob("0*")
    return load_file(folder / "pytorch_lora_weights.safetensors"), json.loads((folder / "manifest.json").read_text())


def train_here(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 0, result.output


def train_in_halves(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process whose memory holds half a batch: the same pieces that two processes have."""

    def only_half_fits(*given: Any, micro_pairs: int, **named: Any) -> StepResult:
        if micro_pairs > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_step(*given, micro_pairs=micro_pairs, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", only_half_fits)
        train_here(arguments)


def test_two_processes_end_in_the_adapter_of_one(data: Path, tmp_path: Path) -> None:
    # A tiny random autoencoder makes all images nearly alike; Adam then scales up what rounding leaves of gradients.
    train_here(options(data, POCKET_MODEL, tmp_path / "alone"))
    arguments = options(data, POCKET_MODEL, tmp_path / "together")
    processes = start_two(tmp_path, "train", *arguments, module="dmpo_app.cli")
    said = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert ["rows read" in output for output, _ in said] == [True, False], "one of them speaks"
    alone, facts = adapter_of(tmp_path / "alone")
    together, their_facts = adapter_of(tmp_path / "together")
    assert (facts["processes"], their_facts["processes"]) == (1, 2)
    assert facts["counts"] == their_facts["counts"]
    assert facts["step"] == their_facts["step"]
    assert max(norm_of_difference(alone, together).values()) <= TOLERANCE


@pytest.mark.soak
@pytest.mark.skipif("DMPO_SOAK_KILLS" not in os.environ, reason="a minute long; `make soak` runs it")
def test_a_signal_stops_both_with_a_checkpoint_and_one_process_ends_on_the_bits_of_one_that_takes_half_batches(
    data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = options(data, tiny_model, tmp_path / "out", steps=100, caption_dropout=0.3)
    processes = start_two(tmp_path, "train", *arguments, module="dmpo_app.cli")
    while not list(tmp_path.glob("out/work/runs/*/checkpoint.safetensors")):
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.002)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=SECONDS) for process in processes]
    assert [process.returncode for process in processes] == [EXIT_STOPPED, EXIT_STOPPED], said
    assert "run the same command again" in said[0][0]
    assert said[1] == ("", "")
    assert not list(tmp_path.glob("out/0*"))
    train_here(arguments)
    resumed, facts = adapter_of(tmp_path / "out")
    assert facts["processes"] == 1
    train_in_halves(options(data, tiny_model, tmp_path / "halves", steps=100, caption_dropout=0.3), monkeypatch)
    assert_equal(resumed, adapter_of(tmp_path / "halves")[0])


def test_what_the_leading_process_cannot_read_ends_the_other_too(tiny_model: Path, tmp_path: Path) -> None:
    unfit = write_pick_a_pic(tmp_path / "train.parquet", [pick_a_pic_row(0, label_0=None)])
    processes = start_two(tmp_path, "train", *options(unfit, tiny_model, tmp_path / "out"), module="dmpo_app.cli")
    said = [" ".join(process.communicate(timeout=SECONDS)[1].split()) for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert "there is no pair to learn from" in said[0]
    assert "process 0 of 2 failed: BadInputError: there is no pair to learn from" in said[1]
