"""Training on a data set instead of on votes: encode it once, then one long round, ending in an adapter's folder.

    OUTPUT/
        00001-1a2b3c4d/     the adapter, as `diffusion.adapter_files` writes it
        work/
            encoded/<key>/  the pairs and the base model's errors on them, good for every training at this resolution
            runs/<key>/     a training: its settings with the betas found, its checkpoint, how it ended

Both keys are made of everything that the folder's content depends on. The same command finds its folders again and goes
on where it was, however it ended.

Of several processes in a group the first reads, encodes and writes; all train.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.errors import BadInput, HomeInUse, StudioError
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.objective import objective_named
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.training.data.encoded_pairs import Counts, EncodedPairs, PairTable
from dmpo_app.training.distributed.process_group import ALONE, Group, check_parts, own_device
from dmpo_app.training.offline.dataset_preparation import (
    Preparation,
    TrainingRequest,
    empty_prompt_of,
    prepare_training,
)
from dmpo_app.training.offline.dataset_run import Run, TrainingWatcher, train_run

__all__ = ["TrainingOutcome", "TrainingRequest", "follow_training", "train_on_dataset"]


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How it ended. `folder` is the adapter's, None when it was stopped before the end.

    `warning` says when held-out pairs judge the adapter to be worse than the base model.
    """

    folder: Path | None
    counts: Counts
    metrics: Mapping[str, float]
    warning: str | None = None


def train_on_dataset(
    source: PreferenceSource,
    reader: PreferenceReader,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingWatcher | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    group: Group = ALONE,
) -> TrainingOutcome:
    """Encode, train, write the adapter; go on where an earlier run of the same request ended.

    With `group` this is the leading process's part; the others call `follow_training`.

    Raises BadInput when there is nothing to learn from, SetupProblem for what does not fit, StudioError when the data
    cannot be read further, RoundFailed when training diverges, StorageFull, HomeInUse when another process trains into
    the same output, PeerLost when a process of the group fails.
    """
    watcher = watcher or TrainingWatcher()
    check_parts(group, settings.round.batch_pairs)
    objective_named(settings.round.objective, settings.round.objective_options)  # raises if there is none such
    with ExitStack() as held:

        def prepare() -> dict[str, object]:
            held.enter_context(_alone(request.output))
            return asdict(prepare_training(source, reader, settings, request, watcher))

        prepared = Preparation(**group.led_at_length(prepare))  # type: ignore[arg-type]
        return _train(prepared, settings, request, watcher, clock, group)


def follow_training(settings: Settings, request: TrainingRequest, group: Group) -> TrainingOutcome:
    """Train what the group's leading process trains with `train_on_dataset`, with the same settings and request.

    Waits, for as long as it takes, until that one has encoded the data. Raises PeerLost when it fails.
    """
    check_parts(group, settings.round.batch_pairs)
    prepared = Preparation(**group.led_at_length(dict))
    return _train(prepared, settings, request, TrainingWatcher(), time.monotonic, group)


def _train(
    prepared: Preparation,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingWatcher,
    clock: Callable[[], float],
    group: Group,
) -> TrainingOutcome:
    counts = Counts.from_facts(prepared.counts)
    if prepared.run is None or prepared.manifest is None:
        return TrainingOutcome(None, counts, {})
    run = Run.from_facts(request.work, request.output, prepared.run)
    if run.end is None:
        encoded = EncodedPairs(request.encoded(prepared.encoded), writes=group.leads)
        table = _same_table(encoded, request, group)
        train_run(
            run,
            table,
            encoded.files,
            _load_denoiser(prepared, settings, request),
            RoundSettings.model_validate(prepared.settings),
            prepared.manifest,
            watcher,
            references=encoded.folder / "references",
            clock=clock,
            group=group,
        )
    if run.end is None:
        return TrainingOutcome(None, counts, {})
    return TrainingOutcome(request.output / run.end["folder"], counts, run.end["metrics"], run.end["warning"])


def _same_table(encoded: EncodedPairs, request: TrainingRequest, group: Group) -> PairTable:
    """The pairs, which all processes of the group must find alike."""
    table = encoded.table(request.limit)
    if len(set(group.share(table.digest))) > 1:
        raise StudioError(
            f"{group.size} processes find different pairs in {encoded.folder}; do all of them see the same folder, and "
            "were they started with the same options?"
        )
    return table


def _load_denoiser(prepared: Preparation, settings: Settings, request: TrainingRequest) -> Denoiser:
    render = settings.render
    denoiser = load_denoiser(
        settings.base_model, device=own_device(render.device), dtype=render.dtype, quantize=render.quantize
    )
    return replace(denoiser, empty_prompt=empty_prompt_of(prepared.encoded, settings, request))


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the output folder for one training."""
    try:
        (output / "work").mkdir(parents=True, exist_ok=True)
        lock = FileLock(output / "work" / "train.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise HomeInUse(f"another process trains into {output}; wait for it, or choose another --output") from error
    except OSError as error:
        raise BadInput(f"{output} cannot be written to ({error}); choose another --output") from error
    try:
        yield
    finally:
        lock.release()
