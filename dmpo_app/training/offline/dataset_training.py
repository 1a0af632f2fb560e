"""Training on a data set instead of on votes: encode its rows once, then train one long round and write an adapter.

    OUTPUT/
        00001-1a2b3c4d/     the adapter, as `diffusion.adapter_files` writes it
        work/
            encoded/<key>/  the pairs and the base model's errors on them, good for every training at this resolution
            runs/<key>/     a training: its settings with the betas found, its checkpoint, how it ended

Both keys are made of everything that the folder's content depends on. The same command finds its folders again and goes
on where it was, however it ended.

Of several processes in a group the main one reads, encodes and writes; its `Preparation` is all that the others need
beside the files. All train.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dmpo_app.diffusion.base_models import detect_family, fingerprint
from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.loaded_pipeline import LoadedPipeline
from dmpo_app.diffusion.loading import Encoder, free_memory, load_denoiser, resolve_dtype
from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.errors import BadInputError, HomeLockedError, StudioError
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.io.files import write_atomically
from dmpo_app.objective import load_objective
from dmpo_app.settings import RoundSettings, Settings
from dmpo_app.training.data.encoding import EmptyPrompt, EncodedPairs, EncodingCounts, PairTable, encode_pairs
from dmpo_app.training.distributed import process_group
from dmpo_app.training.loop.steps import StepDone
from dmpo_app.training.offline.dataset_run import TrainingCallback, TrainingRun, fill_defaults, plan_key, run_steps


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """Request of a training: the output folder and the data to use.

    `limit` pairs at most, None: all; `resolution` None: the base model's own; `loaded` is trained in place of the base
    model that the settings name.
    """

    output: Path
    limit: int | None = None
    resolution: int | None = None
    encode_batch: int = 4
    loaded: LoadedPipeline | None = None

    @property
    def work_folder(self) -> Path:
        """The folder of everything but adapters."""
        return self.output / "work"

    def encoded_folder(self, key: str) -> Path:
        """The folder of pairs encoded under that key."""
        return self.work_folder / "encoded" / key


@dataclass(frozen=True, slots=True)
class Preparation:
    """A prepared training in JSON values; `run` is None when it was stopped while encoding.

    `encoding_key` is the key of the encoded pairs, `settings` are the round's with the defaults filled in, `manifest`
    is what the adapter's folder records beside the training itself.
    """

    counts: dict[str, Any]
    encoding_key: str
    run: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None


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
    group: process_group.ProcessGroup = process_group.SINGLE_PROCESS,
) -> TrainingOutcome:
    """Train on a data set as `dataset_steps` does, to its end or until `watcher` stops it; raises like that."""
    watcher = watcher or TrainingCallback()
    return _run_to_end(dataset_steps(source, reader, settings, request, watcher, clock=clock, group=group), watcher)


def join_training(settings: Settings, request: TrainingRequest, group: process_group.ProcessGroup) -> TrainingOutcome:
    """Train along with the group's main process, which calls `train_on_dataset` with the same settings and request.

    Waits, for as long as it takes, until that one has encoded the data. Raises PeerLostError when it fails.
    """
    process_group.check_world_size(group, settings.round.batch_pairs)
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
    group: process_group.ProcessGroup = process_group.SINGLE_PROCESS,
) -> TrainingSteps:
    """Encode a data set, train on it step by step, and write the adapter; resume an earlier run of the same request.

    Yields each step and returns the outcome. `watcher` is told of the encoding and may stop both; its `on_step` is the
    caller's to call. With `group` this is the main process's part; the others call `join_training`.

    Raises BadInputError when there is nothing to learn from, SetupError for what does not fit, StudioError when the
    data cannot be read further, RoundFailedError when training diverges, StorageFullError, HomeLockedError when another
    process trains into the same output, PeerLostError when a process of the group fails.
    """
    process_group.check_world_size(group, settings.round.batch_pairs)
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
    group: process_group.ProcessGroup,
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


def _same_table(encoded: EncodedPairs, request: TrainingRequest, group: process_group.ProcessGroup) -> PairTable:
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
            settings.base_model,
            device=process_group.device_for_process(render.device),
            dtype=render.dtype,
            quantize=render.quantize,
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


def prepare_training(
    source: PreferenceSource,
    reader: PreferenceReader,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingCallback,
) -> Preparation:
    """Encode the requested rows that are not encoded yet, and open the run. Raises like `train_on_dataset`.

    Text encoders and autoencoder have left memory afterwards, and where captions are dropped the empty prompt is there.
    """
    base = _describe_base_model(settings, request.loaded)
    identity = _encoding_identity(source, reader, settings, request, base["fingerprint"])
    key = plan_key(identity)[:16]
    encoded = EncodedPairs(request.encoded_folder(key))
    description = json.dumps({"name": source.name, **identity}, indent=2)
    write_atomically(request.encoded_folder(key) / "facts.json", description.encode())
    is_complete = _encode_dataset(source, reader, encoded, settings, request, watcher)
    counts = encoded.counts_up_to(request.limit)
    if not is_complete:
        return Preparation(counts.to_dict(), key)
    if counts.pairs == 0:
        raise BadInputError(f"there is no pair to learn from in {source.name}; {_in_words(counts)}")
    num_pairs = counts.pairs if request.limit is None else min(counts.pairs, request.limit)
    round_settings = fill_defaults(settings.round, num_pairs).model_dump(mode="json")
    run = TrainingRun.open(
        request.work_folder, request.output, [identity, request.limit, settings.render.quantize, round_settings]
    )
    if run.end is None and settings.round.caption_dropout > 0:
        get_empty_prompt(key, settings, request).ensure_exists()
    manifest = {
        "base_model": base,
        "dataset": {"name": source.name, **identity["dataset"]},
        "counts": counts.to_dict(),
        "encoding": {"resolution": request.resolution, "dtype": identity["dtype"]},
    }
    return Preparation(counts.to_dict(), key, run.to_dict(), round_settings, manifest)


def get_empty_prompt(encoding_key: str, settings: Settings, request: TrainingRequest) -> EmptyPrompt:
    """The empty prompt beside the pairs encoded under that key: the same base model in the same precision."""
    return EmptyPrompt(
        request.encoded_folder(encoding_key) / "empty-prompt.safetensors", lambda: _load_encoder(settings, request)
    )


def _encode_dataset(
    source: PreferenceSource,
    reader: PreferenceReader,
    encoded: EncodedPairs,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingCallback,
) -> bool:
    """Encode the data set; False when told to stop before its end."""

    def load_encoder() -> Encoder:
        encoder = _load_encoder(settings, request)
        if settings.round.caption_dropout > 0:
            get_empty_prompt(encoded.folder.name, settings, request).write_from(encoder)
        return encoder

    is_complete = encode_pairs(
        source,
        reader,
        encoded,
        load_encoder,
        batch_pairs=request.encode_batch,
        limit=request.limit,
        should_stop=watcher.should_stop,
        on_progress=lambda counts: watcher.on_encoded(counts, request.limit),
    )
    free_memory()
    return is_complete


def _encoding_identity(
    source: PreferenceSource,
    reader: PreferenceReader,
    settings: Settings,
    request: TrainingRequest,
    base_fingerprint: str,
) -> dict[str, Any]:
    """The inputs that the encoded pairs depend on."""
    if request.loaded is None:
        dtype = resolve_dtype(settings.render.dtype, resolve_device(settings.render.device))
    else:
        dtype = request.loaded.denoiser().dtype
    return {
        "dataset": {"fingerprint": source.fingerprint, "format": reader.name},
        "base_model": base_fingerprint,
        "resolution": request.resolution,
        "dtype": str(dtype),
    }


def _describe_base_model(settings: Settings, loaded: LoadedPipeline | None) -> dict[str, str]:
    """Describe the base model for manifests."""
    if loaded is not None:
        return {"source": loaded.source, "family": loaded.family.name, "fingerprint": loaded.fingerprint}
    source = settings.base_model
    return {"source": source, "family": detect_family(source), "fingerprint": fingerprint(source)}


def _load_encoder(settings: Settings, request: TrainingRequest) -> Encoder:
    if request.loaded is not None:
        return request.loaded.encoder(request.resolution)
    device, dtype = process_group.device_for_process(settings.render.device), settings.render.dtype
    return Encoder.load(settings.base_model, device=device, dtype=dtype, resolution=request.resolution)


def _in_words(counts: EncodingCounts) -> str:
    reasons = ", ".join(f"{number} x {reason}" for reason, number in sorted(counts.left_out.items()))
    return f"{counts.rows} rows were read and left out: {reasons or 'none'}"
