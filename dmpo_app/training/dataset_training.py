"""Training on a data set instead of on votes: encode it once, then one long round, ending in an adapter's folder.

    OUTPUT/
        00001-1a2b3c4d/     the adapter, as `diffusion.adapter_files` writes it
        work/
            encoded/<key>/  the pairs and the base model's errors on them, good for every training at this resolution
            runs/<key>/     a training: its settings with the betas found, its checkpoint, how it ended

Both keys are made of everything that the folder's content depends on. The same command finds its folders again and goes
on where it was, however it ended.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from dmpo_app.diffusion.encoder import Encoder
from dmpo_app.diffusion.family import family_of, fingerprint
from dmpo_app.diffusion.loading import load_denoiser, resolve_device, resolve_dtype
from dmpo_app.errors import BadInput, HomeInUse
from dmpo_app.objective import objective_named
from dmpo_app.preferences.reader import PreferenceReader
from dmpo_app.preferences.source import PreferenceSource
from dmpo_app.settings import Settings
from dmpo_app.training.atomic_files import write_atomically
from dmpo_app.training.encoded_pairs import Counts, EncodedPairs
from dmpo_app.training.encoding import encode_pairs
from dmpo_app.training.offline_plan import plan_key, with_usual_values
from dmpo_app.training.offline_run import Run, TrainingWatcher, train_run


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What to train on and where to. `limit` pairs at most, None: all; `resolution` None: the base model's own."""

    output: Path
    limit: int | None = None
    resolution: int | None = None
    encode_batch: int = 4


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
) -> TrainingOutcome:
    """Encode, train, write the adapter; go on where an earlier run of the same request ended.

    Raises BadInput when there is nothing to learn from, SetupProblem for what does not fit, StudioError when the data
    cannot be read further, RoundFailed when training diverges, StorageFull, HomeInUse when another process trains into
    the same output.
    """
    watcher = watcher or TrainingWatcher()
    objective_named(settings.round.objective, settings.round.objective_options)  # raises if there is none such
    base = {"source": settings.base_model, "family": family_of(settings.base_model)}
    base["fingerprint"] = fingerprint(settings.base_model)
    with _alone(request.output):
        work = request.output / "work"
        identity = _encoding_identity(source, reader, settings, request, base["fingerprint"])
        folder = work / "encoded" / plan_key(identity)[:16]
        encoded = EncodedPairs(folder)
        write_atomically(folder / "facts.json", json.dumps({"name": source.name, **identity}, indent=2).encode())
        finished = encode_pairs(
            source,
            reader,
            encoded,
            lambda: _load_encoder(settings, request),
            batch_pairs=request.encode_batch,
            limit=request.limit,
            should_stop=watcher.should_stop,
            on_progress=lambda counts: watcher.encoded(counts, request.limit),
        )
        _free_memory()
        counts = encoded.counts_up_to(request.limit)
        if not finished:
            return TrainingOutcome(None, counts, {})
        if counts.pairs == 0:
            raise BadInput(f"there is no pair to learn from in {source.name}; {_in_words(counts)}")
        table = encoded.table(request.limit)
        round_settings = with_usual_values(settings.round, len(table.prompts))
        facts = [identity, request.limit, settings.render.quantize, round_settings.model_dump(mode="json")]
        run = Run.open(work, request.output, facts)
        if run.end is None:
            manifest = {
                "base_model": base,
                "dataset": {"name": source.name, **identity["dataset"]},
                "counts": counts.facts(),
                "encoding": {"resolution": request.resolution, "dtype": identity["dtype"]},
            }
            render = settings.render
            denoiser = load_denoiser(
                settings.base_model, device=render.device, dtype=render.dtype, quantize=render.quantize
            )
            train_run(
                run,
                table,
                encoded.files,
                denoiser,
                round_settings,
                manifest,
                watcher,
                references=folder / "references",
                clock=clock,
            )
        if run.end is None:
            return TrainingOutcome(None, counts, {})
        return TrainingOutcome(request.output / run.end["folder"], counts, run.end["metrics"], run.end["warning"])


def _encoding_identity(
    source: PreferenceSource,
    reader: PreferenceReader,
    settings: Settings,
    request: TrainingRequest,
    base_fingerprint: str,
) -> dict[str, Any]:
    """What the encoded pairs depend on."""
    device = resolve_device(settings.render.device)
    return {
        "dataset": {"fingerprint": source.fingerprint, "format": reader.name},
        "base_model": base_fingerprint,
        "resolution": request.resolution,
        "dtype": str(resolve_dtype(settings.render.dtype, device)),
    }


def _load_encoder(settings: Settings, request: TrainingRequest) -> Encoder:
    render = settings.render
    return Encoder.load(settings.base_model, device=render.device, dtype=render.dtype, resolution=request.resolution)


def _free_memory() -> None:
    """The encoder is out of scope by now: the denoiser gets its place."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _in_words(counts: Counts) -> str:
    reasons = ", ".join(f"{number} x {reason}" for reason, number in sorted(counts.left_out.items()))
    return f"{counts.rows} rows were read and left out: {reasons or 'none'}"


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the output folder for one process."""
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
