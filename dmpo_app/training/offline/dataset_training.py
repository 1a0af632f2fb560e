"""Training on a data set instead of on votes: encode it once, then train one long round and write an adapter's folder.

    OUTPUT/
        00001-1a2b3c4d/     the adapter, as `diffusion.adapter_files` writes it
        work/
            encoded/<key>/  the pairs and the base model's errors on them, good for every training at this resolution
            runs/<key>/     a training: its settings with the betas found, its checkpoint, how it ended

Both keys are made of everything that the folder's content depends on. The same command finds its folders again and goes
on where it was, however it ended.

Of several processes in a group the first reads, encodes and writes; all train.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.errors import BadInputError, HomeLockedError, StudioError
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.objective import load_objective
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.training.data.encoded_pairs import EncodedPairs, EncodingCounts, PairTable
from dmpo_app.training.distributed.process_group import (
    SINGLE_PROCESS,
    ProcessGroup,
    check_world_size,
    device_for_process,
)
from dmpo_app.training.loop.steps import StepDone
from dmpo_app.training.offline.dataset_preparation import (
    Preparation,
    TrainingRequest,
    get_empty_prompt,
    prepare_training,
)
from dmpo_app.training.offline.dataset_run import TrainingCallback, TrainingRun, run_steps

__all__ = ["TrainingOutcome", "TrainingRequest", "dataset_steps", "join_training", "train_on_dataset"]


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """The outcome of a training. `folder` is the adapter's, None when it was stopped before the end.

    `warning` says when held-out pairs judge the adapter to be worse than the base model.
    """

    folder: Path | None
    counts: EncodingCounts
    metrics: Mapping[str, float]
    warning: str | None = None


TrainingSteps = Generator[StepDone, None, TrainingOutcome]
"""The steps of a training as they are done; what it returns at the end is the outcome."""


def train_on_dataset(
    source: PreferenceSource,
    reader: PreferenceReader,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingCallback | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingOutcome:
    """Train on a data set as `dataset_steps` does, to its end or until `watcher` stops it; raises like that."""
    watcher = watcher or TrainingCallback()
    return _run_to_end(dataset_steps(source, reader, settings, request, watcher, clock=clock, group=group), watcher)


def join_training(settings: Settings, request: TrainingRequest, group: ProcessGroup) -> TrainingOutcome:
    """Train along with the group's main process, which calls `train_on_dataset` with the same settings and request.

    Waits, for as long as it takes, until that one has encoded the data. Raises PeerLostError when it fails.
    """
    check_world_size(group, settings.round.batch_pairs)
    load_objective(settings.round.objective, settings.round.objective_options)
    preparation = Preparation(**group.broadcast_with_heartbeat(dict))
    watcher = TrainingCallback()
    return _run_to_end(_steps(preparation, settings, request, watcher, time.monotonic, group), watcher)


def _run_to_end(training: TrainingSteps, watcher: TrainingCallback) -> TrainingOutcome:
    while True:
        try:
            step_done = next(training)
        except StopIteration as end:
            outcome: TrainingOutcome = end.value
            return outcome
        watcher.on_step(step_done.step, step_done.num_steps, step_done.result)


def dataset_steps(
    source: PreferenceSource,
    reader: PreferenceReader,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingCallback,
    *,
    clock: Callable[[], float] = time.monotonic,
    group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingSteps:
    """Encode a data set, train on it step by step, and write the adapter; resume an earlier run of the same request.

    Yields each step and returns the outcome. `watcher` is told of the encoding and may stop both; its `on_step` is the
    caller's to call. With `group` this is the main process's part; the others call `join_training`.

    Raises BadInputError when there is nothing to learn from, SetupError for what does not fit, StudioError when the
    data cannot be read further, RoundFailedError when training diverges, StorageFullError, HomeLockedError when another
    process trains into the same output, PeerLostError when a process of the group fails.
    """
    check_world_size(group, settings.round.batch_pairs)
    load_objective(settings.round.objective, settings.round.objective_options)  # raises if there is none such
    with ExitStack() as stack:

        def prepare() -> dict[str, object]:
            stack.enter_context(_lock_output(request.output))
            return asdict(prepare_training(source, reader, settings, request, watcher))

        preparation = Preparation(**group.broadcast_with_heartbeat(prepare))  # type: ignore[arg-type]
        return (yield from _steps(preparation, settings, request, watcher, clock, group))


def _steps(
    preparation: Preparation,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingCallback,
    clock: Callable[[], float],
    group: ProcessGroup,
) -> TrainingSteps:
    counts = EncodingCounts.from_dict(preparation.counts)
    if preparation.run is None or preparation.manifest is None:
        return TrainingOutcome(None, counts, {})
    run = TrainingRun.from_dict(request.work_folder, request.output, preparation.run)
    if run.end is None:
        encoded = EncodedPairs(request.encoded_folder(preparation.encoding_key), writes=group.is_main)
        table = _same_table(encoded, request, group)
        yield from run_steps(
            run,
            table,
            encoded.files,
            _load_denoiser(preparation, settings, request),
            RoundSettings.model_validate(preparation.settings),
            preparation.manifest,
            watcher,
            references=encoded.folder / "references",
            clock=clock,
            group=group,
        )
    if run.end is None:
        return TrainingOutcome(None, counts, {})
    return TrainingOutcome(request.output / run.end["folder"], counts, run.end["metrics"], run.end["warning"])


def _same_table(encoded: EncodedPairs, request: TrainingRequest, group: ProcessGroup) -> PairTable:
    """Load the table of pairs, which must be the same in all processes of the group."""
    table = encoded.load_table(request.limit)
    if len(set(group.all_gather(table.digest))) > 1:
        raise StudioError(
            f"{group.world_size} processes find different pairs in {encoded.folder}; do all of them see the same "
            "folder, and were they started with the same options?"
        )
    return table


def _load_denoiser(preparation: Preparation, settings: Settings, request: TrainingRequest) -> Denoiser:
    render = settings.render
    if request.loaded is not None:
        denoiser = request.loaded.denoiser()
    else:
        denoiser = load_denoiser(
            settings.base_model, device=device_for_process(render.device), dtype=render.dtype, quantize=render.quantize
        )
    return replace(denoiser, empty_prompt=get_empty_prompt(preparation.encoding_key, settings, request))


@contextmanager
def _lock_output(output: Path) -> Iterator[None]:
    """Context manager that locks the output folder for one training."""
    try:
        (output / "work").mkdir(parents=True, exist_ok=True)
        lock = FileLock(output / "work" / "train.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise HomeLockedError(
            f"another process trains into {output}; wait for it, or choose another --output"
        ) from error
    except OSError as error:
        raise BadInputError(f"{output} cannot be written to ({error}); choose another --output") from error
    try:
        yield
    finally:
        lock.release()
