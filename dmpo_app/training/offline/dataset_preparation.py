"""What comes before a training on a data set: encoding what is not encoded yet, and finding or opening the run.

Of several processes the first does this; what it found, a `Preparation`, is all that the others need beside the files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmpo_app.diffusion.base_models import family_of, fingerprint
from dmpo_app.diffusion.devices import resolve_device
from dmpo_app.diffusion.encoder import Encoder
from dmpo_app.diffusion.loading import free_memory, resolve_dtype
from dmpo_app.errors import BadInput
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.io import write_atomically
from dmpo_app.settings import Settings
from dmpo_app.training.data.encoded_pairs import Counts, EncodedPairs
from dmpo_app.training.data.encoding import EmptyPrompt, encode_pairs
from dmpo_app.training.distributed.process_group import own_device
from dmpo_app.training.offline.dataset_run import Run, TrainingWatcher, plan_key, with_usual_values


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What to train on and where to. `limit` pairs at most, None: all; `resolution` None: the base model's own."""

    output: Path
    limit: int | None = None
    resolution: int | None = None
    encode_batch: int = 4

    @property
    def work(self) -> Path:
        """Everything but adapters."""
        return self.output / "work"

    def encoded(self, key: str) -> Path:
        """The folder of pairs encoded under that key."""
        return self.work / "encoded" / key


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is to be trained, in values that JSON can hold; `run` is None when it was stopped while encoding.

    `encoded` is the key of the encoded pairs, `settings` are the round's with the usual values filled in, `manifest` is
    what the adapter's folder records beside the training itself.
    """

    counts: dict[str, Any]
    encoded: str
    run: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None


def prepare_training(
    source: PreferenceSource,
    reader: PreferenceReader,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingWatcher,
) -> Preparation:
    """Encode what is wanted and not encoded yet, and open the run. Raises like `train_on_dataset`.

    Text encoders and autoencoder have left memory afterwards, and where captions are dropped the empty prompt is there.
    """
    base = {"source": settings.base_model, "family": family_of(settings.base_model)}
    base["fingerprint"] = fingerprint(settings.base_model)
    identity = _encoding_identity(source, reader, settings, request, base["fingerprint"])
    key = plan_key(identity)[:16]
    encoded = EncodedPairs(request.encoded(key))
    facts = json.dumps({"name": source.name, **identity}, indent=2)
    write_atomically(request.encoded(key) / "facts.json", facts.encode())
    finished = _encode(source, reader, encoded, settings, request, watcher)
    counts = encoded.counts_up_to(request.limit)
    if not finished:
        return Preparation(counts.facts(), key)
    if counts.pairs == 0:
        raise BadInput(f"there is no pair to learn from in {source.name}; {_in_words(counts)}")
    num_pairs = counts.pairs if request.limit is None else min(counts.pairs, request.limit)
    wanted = with_usual_values(settings.round, num_pairs).model_dump(mode="json")
    run = Run.open(request.work, request.output, [identity, request.limit, settings.render.quantize, wanted])
    if run.end is None and settings.round.caption_dropout > 0:
        empty_prompt_of(key, settings, request).prepare()
    manifest = {
        "base_model": base,
        "dataset": {"name": source.name, **identity["dataset"]},
        "counts": counts.facts(),
        "encoding": {"resolution": request.resolution, "dtype": identity["dtype"]},
    }
    return Preparation(counts.facts(), key, run.facts(), wanted, manifest)


def empty_prompt_of(encoded: str, settings: Settings, request: TrainingRequest) -> EmptyPrompt:
    """The empty prompt beside the pairs encoded under that key: the same base model in the same precision."""
    return EmptyPrompt(request.encoded(encoded) / "empty-prompt.safetensors", lambda: _load_encoder(settings, request))


def _encode(
    source: PreferenceSource,
    reader: PreferenceReader,
    encoded: EncodedPairs,
    settings: Settings,
    request: TrainingRequest,
    watcher: TrainingWatcher,
) -> bool:
    """False when told to stop before all was encoded."""

    def load_encoder() -> Encoder:
        encoder = _load_encoder(settings, request)
        if settings.round.caption_dropout > 0:
            empty_prompt_of(encoded.folder.name, settings, request).keep_from(encoder)
        return encoder

    finished = encode_pairs(
        source,
        reader,
        encoded,
        load_encoder,
        batch_pairs=request.encode_batch,
        limit=request.limit,
        should_stop=watcher.should_stop,
        on_progress=lambda counts: watcher.encoded(counts, request.limit),
    )
    free_memory()
    return finished


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
    device, dtype = own_device(settings.render.device), settings.render.dtype
    return Encoder.load(settings.base_model, device=device, dtype=dtype, resolution=request.resolution)


def _in_words(counts: Counts) -> str:
    reasons = ", ".join(f"{number} x {reason}" for reason, number in sorted(counts.left_out.items()))
    return f"{counts.rows} rows were read and left out: {reasons or 'none'}"
