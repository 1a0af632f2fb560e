"""`dmpo train --dataset` as a process of its own: killed in the middle, resumed, and what it refuses."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dmpo_app.cli.main import app
from dmpo_app.cli.train_command import EXIT_STOPPED, nested_settings
from dmpo_app.errors import BadInputError
from dmpo_app.objective import unregister
from tests.exchange.readers.preference_files import mixed_rows, pick_a_pic_row, write_pick_a_pic
from tests.patience import PATIENCE
from tests.preloaded_process import PreloadedPython
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's threads are what they were before, too: they decide the last bits."""
    monkeypatch.setenv("COLUMNS", "200")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


class Training:
    """The command, in this process or in one of its own; one thread either way."""

    def __init__(self, model: Path, data: Path, output: Path) -> None:
        self.output = output
        options = ["--dataset", str(data), "--output", str(output), "--base-model", str(model), "--encode-batch", "1"]
        options += ["--steps", "24", "--batch-pairs", "3", "--held-out-share", "0.4", "--seed", "1"]
        self._options = [*options, "--set", "round.evaluate_every=8", "--set", "round.slice_seconds=0.2"]
        self._options += ["--set", "trainer.num_threads=1", "--set", "render.device=cpu"]

    def run(self) -> tuple[int, str]:
        return run(*self._options)

    def kill_when(self, condition: Callable[[], bool]) -> None:
        """Run it in a process, and kill -9 that as soon as the condition holds, which it must while it runs."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
        log = self.output.with_suffix(".log")
        process = PreloadedPython(
            "dmpo_app.cli", ["train", *self._options], environment=environment, stdout=log, stderr=log
        )
        while not condition():
            assert process.poll() is None, log.read_text()
            time.sleep(0.002)
        process.kill()
        assert process.wait(timeout=PATIENCE) == -signal.SIGKILL

    def index(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.output.glob("work/encoded/*/pairs.jsonl"))

    def pairs(self) -> list[dict[str, Any]]:
        """The index without the bookmarks: datasets writes the same place in several ways."""
        lines = [json.loads(line) for line in self.index().splitlines()]
        return [{name: value for name, value in line.items() if name != "bookmark"} for line in lines]

    def has_checkpoint(self) -> bool:
        return any(self.output.glob("work/runs/*/checkpoint.safetensors"))

    def adapter(self) -> bytes:
        (weights,) = self.output.glob("0*/pytorch_lora_weights.safetensors")
        return weights.read_bytes()


def test_a_training_killed_while_it_encodes_and_while_it_trains_ends_in_the_same_adapter(
    tmp_path: Path, model: Path
) -> None:
    data = tmp_path / "data"
    write_pick_a_pic(data / "train-0.parquet", mixed_rows())
    write_pick_a_pic(data / "train-1.parquet", [pick_a_pic_row(index) for index in range(12, 40)])
    whole = Training(model, data, tmp_path / "whole")
    code, summary = whole.run()
    assert code == 0, summary
    assert "rows read 40" in summary
    assert "pairs 37, 2 of them ties" in summary
    for words in ("left out 1: broken image", "left out 1: identical images", "left out 1: no label"):
        assert words in summary
    assert "pairs agree" in summary

    killed = Training(model, data, tmp_path / "killed")
    killed.kill_when(lambda: killed.index().count(b"\n") >= 3)
    before = killed.index()
    kept = before[: before.rfind(b"\n") + 1]
    assert 3 <= kept.count(b"\n") < 40, "killed in the middle"
    killed.kill_when(killed.has_checkpoint)
    assert killed.index().startswith(kept), "nothing is encoded again"
    assert killed.pairs() == whole.pairs(), "every row once, to the same bits"
    assert not list(killed.output.glob("0*"))
    assert killed.run()[0] == 0
    assert killed.adapter() == whole.adapter()
    manifests = [json.loads(next(one.output.glob("0*/manifest.json")).read_text()) for one in (whole, killed)]
    assert manifests[0]["counts"] == manifests[1]["counts"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_the_same_command_goes_on(tmp_path: Path, model: Path, number: signal.Signals) -> None:
    data = write_pick_a_pic(tmp_path / "train.parquet", [pick_a_pic_row(index) for index in range(30)])
    training = Training(model, data, tmp_path / "out")

    def signal_when_encoding() -> None:
        while training.index().count(b"\n") < 2:
            time.sleep(0.002)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=signal_when_encoding)
    thread.start()
    code, output = training.run()
    thread.join()
    assert code == EXIT_STOPPED, output
    assert "run the same command again to go on" in output
    kept = training.index()
    assert 2 <= kept.count(b"\n") < 31
    code, output = training.run()
    assert code == 0, output
    assert training.index().startswith(kept)


def test_what_makes_no_sense_is_said_in_one_line(tmp_path: Path, model: Path) -> None:
    data = write_pick_a_pic(tmp_path / "train.parquet", [pick_a_pic_row(index) for index in range(2)])
    usual = ("--dataset", str(data), "--output", str(tmp_path / "out"), "--base-model", str(model))
    cases = [
        (("--output", "out"), 1, "go with --dataset"),
        (("--dataset", str(data)), 1, "--output is missing"),
        ((*usual, "--once"), 1, "--once is for training on votes"),
        ((*usual, "--steps", "0"), 2, "DMPO_ROUND__NUM_STEPS=0"),
        ((*usual, "--held-out-share", "1"), 2, "DMPO_ROUND__HELD_OUT_SHARE=1.0"),
        ((*usual, "--set", "round.rnak=8"), 2, "DMPO_ROUND__RNAK=8"),
        ((*usual, "--set", "rank"), 1, "expected GROUP.NAME=VALUE"),
        ((*usual, "--objective", "ppo"), 1, "ppo"),
        ((*usual, "--resolution", "66"), 1, "not a multiple of this model's"),
        ((*usual, "--dataset", str(tmp_path / "gone.parquet")), 1, "there is no data set"),
        ((*usual, "--base-model", str(tmp_path / "gone")), 1, "does not exist"),
    ]
    for arguments, code, words in cases:
        ended, output = run(*arguments)
        assert (ended, words in output) == (code, True), (arguments, output)


def test_settings_are_given_by_name_and_flags_win() -> None:
    assert nested_settings(["round.rank=16", "round.target_modules=wide"], {"round.seed": 3, "round.beta": None}) == {
        "round": {"rank": 16, "target_modules": "wide", "seed": 3}
    }
    assert nested_settings(["round.num_steps=7"], {"round.num_steps": 9}) == {"round": {"num_steps": 9}}
    with pytest.raises(BadInputError, match="GROUP"):
        nested_settings(["round.=1"], {})
    with pytest.raises(BadInputError, match="as a whole"):
        nested_settings(["round=1", "round.rank=2"], {})


def test_an_objective_of_ones_own_is_named_by_module_on_the_command_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "losses_of_mine.py").write_text("def square(margin, target):\n    return (margin - 1).square()\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = write_pick_a_pic(tmp_path / "data.parquet", [pick_a_pic_row(index) for index in range(4)])
    training = ["--dataset", str(data), "--base-model", str(model), "--steps", "2", "--set", "render.device=cpu"]
    try:
        code, output = run(*training, "--output", str(tmp_path / "out"), "--objective", "losses_of_mine:square")
        assert code == 0, output
    finally:
        unregister("losses_of_mine:square")
    (manifest,) = (tmp_path / "out").glob("0*/manifest.json")
    assert json.loads(manifest.read_text())["config"]["settings"]["objective"] == "losses_of_mine:square"
    code, output = run(*training, "--output", str(tmp_path / "other"), "--objective", "losses_of_mine:cube")
    assert code == 1
    assert "'losses_of_mine:cube' cannot be loaded" in output
