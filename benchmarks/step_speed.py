"""Pairs per second of a training step, against the DPO LoRA script of diffusers, and how far a step is from its floor.

    python -m benchmarks.step_speed --diffusers PATH [--python PYTHON] [--model pocket|sd15|sdxl]
                                    [--dtype float32|bfloat16|float16] [--batch 8] [--steps 40] [--repeats 5]

PATH is a checkout of huggingface/diffusers, its folder examples/research_projects/diffusion_dpo, or the script itself
(train_diffusion_dpo.py, for sdxl train_diffusion_dpo_sdxl.py). The script is run as it is, under PYTHON, which needs
what its own requirements.txt asks for and `datasets`. Model and pairs are local; sd15 and sdxl have random weights.

The contestants are processes that take turns of `--steps` steps, `--repeats` times, in alternating order; start-up,
loading and warm-up are outside the turns. On a CPU all are loaded together; on a GPU each starts anew for every turn,
so that it has the memory to itself. Ratios are taken within a repeat; the tables give their median and range. Each turn
is timed by the wall and by the process's CPU time: on a busy machine, with one thread, the latter is to be trusted.

A step of ours whose references are all known and one that has to compute them are timed apart; what a first and a
tenth round get is put together from the two by the share of such steps in their draws (`benchmarks.hit_rates`). The
floor of a step is four forward passes of an image for each of its pairs: forward and backward of two images, a backward
pass that gives no gradients to frozen weights costing about a forward pass.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.report import machine
from benchmarks.step_material import SHAPES, SPLIT, Shape, write_pairs
from benchmarks.step_report import Measured, print_speed
from benchmarks.step_turns import Contestant, ContestantFailed
from dmpo_app.settings import PROJECT_ROOT

RANK = 8
"""Of the scripts' README and of our default."""
SCRIPT_FOLDER = Path("examples") / "research_projects" / "diffusion_dpo"
HOW_TO_GET = """\
no {script} at {path}; get it with
    git clone --depth 1 https://github.com/huggingface/diffusers
and pass --diffusers diffusers. It runs under --python, which needs
    pip install -r diffusers/examples/research_projects/diffusion_dpo/requirements.txt datasets"""
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
NUM_ROWS = 64


def find_script(path: Path | None, name: str) -> Path:
    """The script below a checkout, in a folder, or itself. Ends the program with what to do when it is not there."""
    candidates = [] if path is None else [path / SCRIPT_FOLDER / name, path / name, path]
    for candidate in candidates:
        if candidate.is_file() and candidate.name == name:
            return candidate.resolve()
    raise SystemExit(HOW_TO_GET.format(script=name, path=path or "--diffusers (not given)"))


def contestants(arguments: argparse.Namespace, shape: Shape, device: str) -> dict[str, Contestant]:
    """The script, on a GPU with and without gradient checkpointing, and our training of two sets of layers."""
    work: Path = arguments.work
    resolution = arguments.resolution or shape.resolution
    model = shape.model_folder(arguments.model, work)
    pairs = write_pairs(
        work / f"pairs-{resolution}", resolution=resolution, count=NUM_ROWS // arguments.batch * arguments.batch
    )
    script = find_script(arguments.diffusers, shape.script)
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if device == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    if arguments.threads:
        environment |= {"OMP_NUM_THREADS": str(arguments.threads)}
    num_steps = arguments.warmup + arguments.steps * (arguments.repeats if device == "cpu" else 1)
    theirs = [
        *(arguments.python, "-m", "benchmarks.diffusers_script", "--threads", str(arguments.threads), str(script)),
        *(f"--pretrained_model_name_or_path={model}", f"--dataset_name={pairs}", f"--dataset_split_name={SPLIT}"),
        *(f"--cache_dir={work / 'datasets'}", f"--output_dir={work / 'script'}", f"--resolution={resolution}"),
        *(f"--train_batch_size={arguments.batch}", f"--max_train_steps={num_steps}", f"--rank={RANK}"),
        *(f"--mixed_precision={PRECISIONS[arguments.dtype]}", "--learning_rate=1e-5", "--lr_scheduler=constant"),
        *("--lr_warmup_steps=0", "--seed=0", "--report_to=tensorboard", "--checkpointing_steps=1000000000"),
    ]
    ours = [
        *(sys.executable, "-m", "benchmarks.step_ours", f"--model={model}", f"--dtype={arguments.dtype}"),
        *(f"--latent-size={resolution // shape.latent_factor}", f"--batch={arguments.batch}", f"--device={device}"),
        f"--threads={arguments.threads}",
    ]
    commands = {"script": theirs, "attention": [*ours, "--targets=attention"], "wide": [*ours, "--targets=wide"]}
    if device != "cpu":
        theirs += ["--use_8bit_adam"] if has_module(arguments.python, "bitsandbytes") else []
        commands = {"script, checkpointing": [*theirs, "--gradient_checkpointing"], **commands}
    return {
        name: Contestant(name, command, environment, work / f"{name.replace(', ', '-')}.log")
        for name, command in commands.items()
    }


def has_module(python: str, name: str) -> bool:
    return subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode == 0


def measure(sides: dict[str, Contestant], arguments: argparse.Namespace, *, together: bool) -> dict[str, Measured]:
    """Turns in alternating order. A contestant that runs out of memory is left out from then on."""
    measured = {name: Measured() for name in sides}
    turns = arguments.repeats if together else 1
    try:
        if together:
            for name, side in sides.items():
                measured[name].facts = side.start(warmup=arguments.warmup, steps=arguments.steps, turns=turns)
        for repeat in range(arguments.repeats):
            for name in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
                if measured[name].failure is None:
                    _turn(sides[name], measured[name], arguments, start=not together)
            print(f"repeat {repeat + 1} of {arguments.repeats}", file=sys.stderr, flush=True)
        if together:
            for name, side in sides.items():
                measured[name].peaks.append(side.finish()["peak_bytes"])
    finally:
        for side in sides.values():
            side.stop()
    return measured


def _turn(side: Contestant, measured: Measured, arguments: argparse.Namespace, *, start: bool) -> None:
    try:
        if start:
            measured.facts = side.start(warmup=arguments.warmup, steps=arguments.steps, turns=1)
        measured.seconds.append(side.turn())
        if start:
            measured.peaks.append(side.finish()["peak_bytes"])
    except ContestantFailed as failure:
        if not failure.out_of_memory:
            raise
        measured.failure = "out of memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diffusers", type=Path, help="checkout of diffusers, or the script")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the script")
    parser.add_argument("--model", choices=sorted(SHAPES), default="pocket")
    parser.add_argument("--dtype", choices=sorted(PRECISIONS), help="float32 on a CPU, float16 on a GPU unless given")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the pocket model's is cpu unless given")
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--steps", type=int, default=40, help="a turn")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="torch threads of each contestant; 0: its own choice")
    parser.add_argument("--resolution", type=int, help="pixels; the model's own unless given")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dmpo-step-speed")
    arguments = parser.parse_args()
    shape = SHAPES[arguments.model]
    find_script(arguments.diffusers, shape.script)
    device = arguments.device or ("cpu" if arguments.model == "pocket" else "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        print(f"{arguments.model}: not measured, this machine has no GPU that torch can use")
        return
    arguments.dtype = arguments.dtype or ("float32" if device == "cpu" else "float16")
    arguments.work.mkdir(parents=True, exist_ok=True)
    name = machine() if device == "cpu" else f"{torch.cuda.get_device_name()}; {machine()}"
    print(f"{name}, {arguments.threads or 'default'} threads\n")
    print(f"{arguments.model} on {device}, {arguments.dtype}, {arguments.batch} pairs a step, ", end="")
    print(f"{arguments.repeats} turns of {arguments.steps} steps\n", flush=True)
    sides = contestants(arguments, shape, device)
    print_speed(measure(sides, arguments, together=device == "cpu"), arguments.model, arguments.batch)


if __name__ == "__main__":
    main()
