"""The same round in two real processes: equal to one within addition's order, and no one is left waiting."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.errors import SetupError
from dmpo_app.settings import PROJECT_ROOT
from dmpo_app.training.distributed.process_group import ProcessGroup, device_for_process
from dmpo_app.training.distributed.torchrun_env import world_size
from dmpo_app.training.loop import trainer
from dmpo_app.training.loop.step import train_step
from dmpo_app.training.monitoring.early_stopping import StepResult
from tests.model_fixtures import NUM_THREADS
from tests.patience import PATIENCE, wait_until
from tests.preloaded_process import PreloadedPython
from tests.tolerance import LOSS_RELATIVE
from tests.training.training_studio import FAST, TrainingStudio, assert_equal, twin_of, weights_of

TOLERANCE = 1e-5
"""Relative, in the norm of all A and of all B. Two processes have other batch shapes than one, so other last bits."""
SIX_STEPS = FAST.model_copy(update={"evaluate_every": 6})
OWN = {"beta", "num_steps", "batch_pairs", "evaluate_every", "rank", "slots_per_pair"}
SECONDS = 5 * PATIENCE


def environment(**named: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
    return {**inherited, "PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1", **named}


def start_two(folder: Path, *arguments: str, module: str = "tests.training.two_processes") -> list[PreloadedPython]:
    """Start two processes by hand, of `two_processes` unless told otherwise; what they say goes to files of `folder`.

    torchrun would end the one when the other dies.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        PreloadedPython(
            module,
            arguments,
            environment=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=folder / f"process {rank}.out",
            stderr=folder / f"process {rank}.err",
        )
        for rank in range(2)
    ]


def norm_of_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, float]:
    """Of all A and of all B, relative."""
    assert ours.keys() == theirs.keys()
    found = {}
    for matrix in ("lora_A", "lora_B"):
        one, other = (torch.cat([side[key].flatten() for key in ours if matrix in key]) for side in (ours, theirs))
        found[matrix] = float((one - other).norm() / one.norm())
    return found


def train_with_torchrun(studio: TrainingStudio, folder: Path) -> None:
    """Train as the documents say, in a folder whose modules have the names of others."""
    for name in ("json.py", "torch.py", "dmpo_app.py"):
        (folder / name).write_text("raise SystemExit('a module of the current folder was imported')")
    names = {f"DMPO_ROUND__{name.upper()}": str(value) for name, value in SIX_STEPS.model_dump(include=OWN).items()}
    torchrun, dmpo = (Path(sys.executable).with_name(program) for program in ("torchrun", "dmpo"))
    subprocess.run(
        [torchrun, "--standalone", "--nproc-per-node", "2", "--no-python", dmpo, "train", "--once"],
        cwd=folder,
        env=environment(
            **names,
            DMPO_HOME=str(studio.home),
            DMPO_BASE_MODEL=str(studio.source),
            DMPO_TRAINER__NUM_THREADS=str(NUM_THREADS),
            DMPO_RENDER__DEVICE="cpu",
        ),
        check=True,
        timeout=SECONDS,
    )


def train_in_halves(studio: TrainingStudio, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process whose memory holds half a batch: the same pieces that two processes have."""

    def only_half_fits(*arguments: Any, micro_pairs: int, **named: Any) -> StepResult:
        if micro_pairs > SIX_STEPS.batch_pairs // 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_step(*arguments, micro_pairs=micro_pairs, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", only_half_fits)
        round_id, token = studio.start(settings=SIX_STEPS)
        studio.run(denoiser, round_id, token)


def test_a_round_under_torchrun_publishes_what_one_process_does(
    studio: TrainingStudio, denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.add_pairs(12)
    studio.vote(12)
    round_id, token = studio.start(settings=SIX_STEPS)
    studio.run(denoiser, round_id, token)
    halves, twin = twin_of(studio, tmp_path / "halves"), twin_of(studio, tmp_path / "twin")
    train_in_halves(halves, denoiser, monkeypatch)
    train_with_torchrun(twin, tmp_path)

    adapter, alone = (home.store.adapters.get(home.base, 1) for home in (twin, studio))
    manifest = json.loads((adapter.folder / "manifest.json").read_text())
    assert manifest["config"]["environment"]["processes"] == 2
    assert adapter.metrics["step"] == alone.metrics["step"] == 6
    assert adapter.metrics["held_out_loss"] == pytest.approx(alone.metrics["held_out_loss"], rel=LOSS_RELATIVE)
    assert_equal(weights_of(twin), weights_of(halves))
    assert max(norm_of_difference(weights_of(studio), weights_of(twin)).values()) <= TOLERANCE
    halves.store.close()
    twin.store.close()


def test_what_one_process_finds_all_of_them_know(tmp_path: Path) -> None:
    processes = start_two(tmp_path, "agree")
    said = [process.communicate(timeout=SECONDS)[0].splitlines() for process in processes]
    for lines in said:
        assert lines[0] == "processes 2, results [[0, 0.1], [1, 0.1]], led 7"
        assert lines[-1] == "summed [3.0, 3.0, 3.0]"
    assert said[0][1:3] == [
        "OutOfMemoryError: process 1 of 2 ran out of memory",
        "PeerLostError: process 1 of 2 failed: ValueError: no such thing",
    ]
    assert said[1][1:3] == ["OutOfMemoryError: CUDA out of memory", "ValueError: no such thing"]


def test_the_others_wait_for_the_leading_process_longer_than_they_are_patient(tmp_path: Path) -> None:
    processes = start_two(tmp_path, "wait")
    said = [process.communicate(timeout=SECONDS)[0].splitlines() for process in processes]
    for lines in said:
        assert lines[0] == "led [1, 'done']"
        assert lines[2] == "shared [0, 1]"
    assert said[0][1] == "ValueError: no such data"
    assert said[1][1] == "PeerLostError: process 0 of 2 failed: ValueError: no such data"


def test_memory_short_in_one_process_halves_the_pieces_in_both_and_a_killed_one_ends_the_other(
    studio: TrainingStudio, tmp_path: Path
) -> None:
    studio.add_pairs(12)
    studio.vote(12)
    round_id, token = studio.start()
    processes = start_two(tmp_path, "die", str(studio.home), str(studio.source), str(round_id), str(token))
    said = [process.communicate(timeout=SECONDS) for process in processes]
    assert processes[1].returncode == -signal.SIGKILL
    assert processes[0].returncode == 1, said[0][1][-2000:]
    lines = said[0][0].splitlines()
    assert lines[:4] == ["micro_pairs 2", "micro_pairs 1", "micro_pairs 1", "micro_pairs 1"]
    assert lines[-1].startswith("PeerLost after step 2: process 0 of 2 lost another one")
    assert studio.store.rounds.get(round_id).finished_at is None


@pytest.mark.soak
@pytest.mark.skipif("DMPO_SOAK_KILLS" not in os.environ, reason="torchrun imports torch thrice; `make soak` runs it")
def test_processes_that_hang_do_not_outlive_torchrun(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.training.two_processes", "deaf"]
    said = tmp_path / "said.txt"
    with said.open("wb") as output:
        agent = subprocess.Popen(command, stdout=output, env=environment(), cwd=PROJECT_ROOT)
    wait_until(lambda: said.read_text().count("pid ") == 2, "both processes run")
    workers = [psutil.Process(int(line.split()[1])) for line in said.read_text().splitlines()]
    agent.kill()
    agent.wait()
    _, survivors = psutil.wait_procs(workers, timeout=10)
    for survivor in survivors:
        survivor.kill()
    assert survivors == []


def test_every_process_has_an_equal_part_and_all_positions_are_somebodys() -> None:
    for size in (1, 2, 3):
        parts = []
        for rank in range(size):
            group = ProcessGroup()
            group.process_rank, group.world_size = rank, size
            parts.append(group.shard(8))
        assert len({len(part) for part in parts}) == 1
        assert sorted(position for part in parts for position in part if position < 8) == list(range(8))


def test_a_world_size_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(SetupError, match="many"):
        world_size()


def test_a_process_by_itself_keeps_the_device_that_is_set() -> None:
    assert device_for_process("auto") == "auto"
    assert device_for_process("cpu") == "cpu"
