"""Preparation of a training on a data set: encoding the rows that are not encoded yet, and opening the run.

Of several processes the main one does this; its `Preparation` is all that the others need beside the files.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmpo_app.diffusion.base_models import detect_family, fingerprint
from dmpo_app.diffusion.encoder import Encoder
from dmpo_app.diffusion.loaded_pipeline import LoadedPipeline
from dmpo_app.diffusion.loading import free_memory, resolve_dtype
from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.errors import BadInputError
from dmpo_app.exchange.readers.reader import PreferenceReader
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.io import write_atomically
from dmpo_app.settings import Settings
from dmpo_app.training.data.encoded_pairs import EncodedPairs, EncodingCounts
from dmpo_app.training.data.encoding import EmptyPrompt, encode_pairs
from dmpo_app.training.distributed.process_group import device_for_process
from dmpo_app.training.offline.dataset_run import TrainingCallback, TrainingRun, fill_defaults, plan_key


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
    base = _base_model(settings, request.loaded)
    identity = _encoding_identity(source, reader, settings, request, base["fingerprint"])
    key = plan_key(identity)[:16]
    encoded = EncodedPairs(request.encoded_folder(key))
    description = json.dumps({"name": source.name, **identity}, indent=2)
    write_atomically(request.encoded_folder(key) / "facts.json", description.encode())
    is_complete = _encode(source, reader, encoded, settings, request, watcher)
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


def _encode(
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


def _base_model(settings: Settings, loaded: LoadedPipeline | None) -> dict[str, str]:
    """Describe the base model for manifests."""
    if loaded is not None:
        return {"source": loaded.source, "family": loaded.family.name, "fingerprint": loaded.fingerprint}
    source = settings.base_model
    return {"source": source, "family": detect_family(source), "fingerprint": fingerprint(source)}


def _load_encoder(settings: Settings, request: TrainingRequest) -> Encoder:
    if request.loaded is not None:
        return request.loaded.encoder(request.resolution)
    device, dtype = device_for_process(settings.render.device), settings.render.dtype
    return Encoder.load(settings.base_model, device=device, dtype=dtype, resolution=request.resolution)


def _in_words(counts: EncodingCounts) -> str:
    reasons = ", ".join(f"{number} x {reason}" for reason, number in sorted(counts.left_out.items()))
    return f"{counts.rows} rows were read and left out: {reasons or 'none'}"
