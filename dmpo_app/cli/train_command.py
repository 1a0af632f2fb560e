"""`dmpo train`: training on the votes of a home, or on a data set."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.progress import Progress
from rich.table import Table

from dmpo_app.cli.terminal import StudioContext, exit_on_error, log_to_terminal, out, progress
from dmpo_app.errors import BadInputError
from dmpo_app.io.files import users_umask
from dmpo_app.io.processes import stop_signals
from dmpo_app.training.distributed.torchrun_env import is_secondary_process, world_size

if TYPE_CHECKING:
    from dmpo_app.exchange.readers.reader import PreferenceReader
    from dmpo_app.exchange.readers.source import PreferenceSource
    from dmpo_app.settings import Settings
    from dmpo_app.training.offline.dataset_training import TrainingOutcome

EXIT_STOPPED = 130


def _for_data(description: str, **checks: Any) -> Any:
    """An option that goes with --dataset."""
    return typer.Option(help=description, rich_help_panel="Training on a data set", **checks)


Once = Annotated[bool, typer.Option(help="Train one round over the votes there are, then stop")]
Dataset = Annotated[str | None, _for_data("Train on this instead of votes: file, folder or hub id")]
Output = Annotated[Path | None, _for_data("Folder for the adapter")]
Objective = Annotated[str | None, _for_data("See `dmpo objectives`")]
Steps = Annotated[int | None, _for_data("Optimizer steps; not given: one pass, 80 to 2,000 steps")]
BatchPairs = Annotated[int | None, _for_data("Pairs per step, of all processes together")]
Limit = Annotated[int | None, _for_data("Use the first so many pairs; no more is read", min=1)]
Resolution = Annotated[int | None, _for_data("Pixels a side; not given: the base model's", min=8, max=4096)]
EncodeBatch = Annotated[int, _for_data("Pairs that are encoded at a time", min=1, max=1024)]
HeldOutShare = Annotated[float | None, _for_data("Of the prompts, to judge by; not given: 0.2, 512 pairs at most")]
Seed = Annotated[int | None, _for_data("Of split, noise and order")]
Split = Annotated[str, _for_data("Of the data set")]
Subset = Annotated[str | None, _for_data("Configuration of a hub id that has several")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="GROUP.NAME=VALUE",
        help="Any setting: round.rank=16",
        rich_help_panel="Training on a data set",
    ),
]


class DatasetOptions(NamedTuple):
    """Options of training on a data set that are no settings."""

    dataset: str
    split: str
    subset: str | None
    output: Path
    limit: int | None
    resolution: int | None
    encode_batch: int


def train(
    context: StudioContext,
    once: Once = False,
    dataset: Dataset = None,
    output: Output = None,
    objective: Objective = None,
    steps: Steps = None,
    batch_pairs: BatchPairs = None,
    limit: Limit = None,
    resolution: Resolution = None,
    encode_batch: EncodeBatch = 4,
    held_out_share: HeldOutShare = None,
    seed: Seed = None,
    split: Split = "train",
    subset: Subset = None,
    overrides: Overrides = None,
) -> None:
    """Train on votes until stopped, on the votes there are (--once), or on a data set (--dataset).

    On several GPUs, either way: torchrun --nproc-per-node 8 --no-python dmpo train ...
    """
    log_to_terminal(logging.WARNING if dataset is not None and is_secondary_process() else logging.INFO)
    flags = {
        "objective": objective,
        "num_steps": steps,
        "batch_pairs": batch_pairs,
        "held_out_share": held_out_share,
        "seed": seed,
    }
    with exit_on_error():
        setting_values = nested_settings(overrides or [], {f"round.{name}": value for name, value in flags.items()})
        settings = context.load_settings(nested=setting_values)
        if dataset is None:
            if output is not None or limit is not None or resolution is not None:
                raise BadInputError("--output, --limit and --resolution go with --dataset, which is missing")
            _train_on_votes(settings, once=once)
            return
        if once:
            raise BadInputError("--once is for training on votes; with --dataset there is one training anyway")
        if output is None:
            raise BadInputError("--output is missing: the folder that the adapter is written to")
        options = DatasetOptions(dataset, split, subset, output.resolve(), limit, resolution, encode_batch)
        with users_umask():
            outcome = _train_on_dataset(options, settings)
    _report_outcome(outcome, quiet=is_secondary_process())


def nested_settings(overrides: list[str], flags: dict[str, Any]) -> dict[str, Any]:
    """Parse `round.rank=16` and the like to nested mappings; a value is JSON where it can be read as such, else text.

    A flag that was given (is not None) wins. Raises BadInputError for what has no `=`.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not all(name.split(".")):
            raise BadInputError(
                f"--set {text!r} is not understood; expected GROUP.NAME=VALUE, for example round.rank=16"
            )
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    values |= {name: value for name, value in flags.items() if value is not None}
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group = nested
        *parents, last = name.split(".")
        for parent in parents:
            group = group.setdefault(parent, {})
            if not isinstance(group, dict):
                raise BadInputError(f"--set {name}: {parent} is set as a whole already")
        group[last] = value
    return nested


def _train_on_votes(settings: Settings, *, once: bool) -> None:
    from dmpo_app.cli.offline import train_one_round, train_until_stopped

    if not once or is_secondary_process():
        train_until_stopped(settings)
        return
    with progress() as bar:
        task = bar.add_task("training", total=None)
        final_state = train_one_round(
            settings,
            lambda state: bar.update(
                task,
                total=state.steps,
                completed=state.step,
                description="training" if state.margin is None else f"training  margin u {state.margin:+.2f}",
            ),
        )
    out.print(
        f"round {final_state.id}: {final_state.status}" + (f" ({final_state.reason})" if final_state.reason else "")
    )


def _train_on_dataset(options: DatasetOptions, settings: Settings) -> TrainingOutcome:
    """Train on a data set. Of several processes only the first reads the data and prints anything."""
    from dmpo_app.diffusion.base_models import detect_family

    detect_family(settings.base_model)  # what is unfit is told before the slow imports
    source_and_reader = _open(options, settings) if world_size() == 1 else None
    from dmpo_app.training.distributed.process_group import join_process_group
    from dmpo_app.training.offline.dataset_training import TrainingRequest, join_training, train_on_dataset

    request = TrainingRequest(options.output, options.limit, options.resolution, options.encode_batch)
    if settings.trainer.num_threads is not None:
        import torch

        torch.set_num_threads(settings.trainer.num_threads)
    with stop_signals() as stopping, join_process_group() as group:
        if not group.is_main:
            return join_training(settings, request, group)
        source, reader = source_and_reader or _open(options, settings)
        with progress() as bar:
            watcher = _watcher(bar, stopping.is_set)
            return train_on_dataset(source, reader, settings, request, watcher, group=group)


def _open(options: DatasetOptions, settings: Settings) -> tuple[PreferenceSource, PreferenceReader]:
    from dmpo_app.exchange.readers.parsed import open_dataset
    from dmpo_app.exchange.readers.registry import detect_reader

    limits = settings.parsing.limits
    source = open_dataset(options.dataset, split=options.split, config=options.subset, limits=limits)
    reader = detect_reader(source.columns, source.name)
    out.print(f"{source.name}: {reader.name}", highlight=False)
    return source, reader


def _watcher(bar: Progress, should_stop: Any) -> Any:
    from dmpo_app.training.data.encoding import EncodingCounts
    from dmpo_app.training.monitoring.early_stopping import StepResult
    from dmpo_app.training.offline.dataset_run import TrainingCallback

    class TerminalWatcher(TrainingCallback):
        encoding = bar.add_task("encoding", total=None)
        training = bar.add_task("training", total=None, visible=False)

        def should_stop(self) -> bool:
            return bool(should_stop())

        def on_encoded(self, counts: EncodingCounts, limit: int | None) -> None:
            left_out = counts.left_out.total()
            description = f"encoding  {counts.rows} rows, {left_out} pairs left out"
            bar.update(self.encoding, total=limit, completed=counts.pairs, description=description)

        def on_step(self, step: int, steps: int, result: StepResult) -> None:
            description = f"training  margin u {result.agreement.margin:+.2f}"
            bar.update(self.training, visible=True, total=steps, completed=step, description=description)

    return TerminalWatcher()


def _report_outcome(outcome: TrainingOutcome, *, quiet: bool) -> None:
    """Print the outcome, unless another process does; EXIT_STOPPED when training was stopped before the end."""
    if outcome.folder is None:
        if not quiet:
            out.print("stopped; what was done is kept: run the same command again to go on")
        raise typer.Exit(EXIT_STOPPED)
    if not quiet:
        _print_summary(outcome)


def _print_summary(outcome: TrainingOutcome) -> None:
    counts, metrics = outcome.counts, outcome.metrics
    table = Table(show_header=False, box=None)
    table.add_row("rows read", str(counts.rows))
    table.add_row("pairs", f"{counts.pairs}, {counts.ties} of them ties")
    for reason, number in sorted(counts.left_out.items()):
        table.add_row("left out", f"{number}: {reason}")
    table.add_row("trained on", f"{metrics['train_pairs']:.0f} pairs, {metrics['seconds']:.0f} s")
    if "held_out_accuracy" in metrics:
        accuracy_text = f"{metrics['held_out_accuracy']:.1%} of {metrics['held_out_pairs']:.0f} pairs agree"
        probability = f"probability of the voted side {metrics['held_out_probability']:.1%}, base model 50 %"
        losses = f"loss {metrics['held_out_loss']:.4f}, base model {metrics['base_held_out_loss']:.4f}"
        table.add_row("held out", f"{accuracy_text}; {probability}; {losses}; best at step {metrics['step']:.0f}")
    if outcome.warning:
        table.add_row("warning", outcome.warning)
    table.add_row("adapter", str(outcome.folder))
    out.print(table, highlight=False, soft_wrap=True)
