"""Encoding of a data set's images and prompts into what the denoiser takes, the empty prompt included.

Shapes:  H W height and width of images in pixels.

The trainer has no text encoder. They are loaded for this once, before the denoiser is, and what they give is kept in a
file; they never are where no caption is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from dmpo_app.diffusion.encoder import Encoder, Pixels, resize_and_crop
from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.loading import free_memory, resolve_dtype
from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents, load_conditioning
from dmpo_app.exchange.readers.pair import LeftOutPair, PreferencePair, decode_image
from dmpo_app.exchange.readers.reader import PreferenceReader, Row, read_row
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.io import sha256_hex, write_atomically
from dmpo_app.training.data.dataset import PairFiles
from dmpo_app.training.data.encoded_pairs import EncodedBatch, EncodedPair, EncodedPairs, EncodingCounts

_MAX_THREADS = 8


@dataclass(frozen=True, slots=True)
class _PreparedPair:
    """A pair with its images (H, W, 3) cut to size."""

    pair: PreferencePair
    image_a: Pixels
    image_b: Pixels


def encode_pairs(
    source: PreferenceSource,
    reader: PreferenceReader,
    encoded: EncodedPairs,
    load_encoder: Callable[[], Encoder],
    *,
    batch_pairs: int,
    limit: int | None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[EncodingCounts], None] = lambda _: None,
) -> bool:
    """Encode rows that `encoded` lacks, until there are `limit` pairs or the data set ends. False when told to stop.

    No more rows are read than that takes, and the encoder is loaded only when there is something to encode. A batch
    begins where the last one recorded ended, so that a pass that was killed and taken up again makes the very batches,
    and so the very bits, of one that was not. Raises StudioError when reading fails, StorageFullError.
    """
    if _is_enough(encoded, limit):
        return True
    encoder = load_encoder()
    stream = source.open(encoded.bookmark)
    rows = iter(stream)
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        while not _is_enough(encoded, limit):
            if should_stop():
                return False
            num_rows = batch_pairs if limit is None else min(batch_pairs, limit - encoded.counts.pairs)
            batch_rows = list(islice(rows, num_rows))
            first = encoded.counts.rows
            prepare = partial(_prepare, reader, source, encoder.size)
            prepared_pairs = [
                one for row in pool.map(prepare, range(first, first + len(batch_rows)), batch_rows) for one in row
            ]
            pairs = [one for one in prepared_pairs if isinstance(one, _PreparedPair)]
            left_out = [(one.reason, one.source_id) for one in prepared_pairs if isinstance(one, LeftOutPair)]
            batches = [pairs[start : start + batch_pairs] for start in range(0, len(pairs), batch_pairs)]
            embeds: dict[str, str] = {}
            new_pairs = [pair for batch in batches for pair in _encode(batch, encoder, encoded, embeds)]
            is_last = len(batch_rows) < num_rows
            encoded.append(EncodedBatch(len(batch_rows), new_pairs, left_out, stream.bookmark(), is_last))
            on_progress(encoded.counts)
    return True


def _is_enough(encoded: EncodedPairs, limit: int | None) -> bool:
    return encoded.is_complete or (limit is not None and encoded.counts.pairs >= limit)


def _prepare(
    reader: PreferenceReader, source: PreferenceSource, size: tuple[int, int], number: int, row: Row
) -> list[_PreparedPair | LeftOutPair]:
    return [
        pair if isinstance(pair, LeftOutPair) else _PreparedPair(pair, *_load_images(pair, size))
        for pair in read_row(reader, row, str(number), source.folder)
    ]


def _load_images(pair: PreferencePair, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    return resize_and_crop(decode_image(pair.image_a), size), resize_and_crop(decode_image(pair.image_b), size)


def _encode(
    batch: Sequence[_PreparedPair], encoder: Encoder, encoded: EncodedPairs, embeds: dict[str, str]
) -> list[EncodedPair]:
    """Encode a batch and store its files. `embeds` are prompts encoded since the last batch was recorded."""
    latents = encoder.latents([image for one in batch for image in (one.image_a, one.image_b)])
    latent_files = [dump_latents(image) for image in latents]
    new: list[bytes] = []
    for prompt in dict.fromkeys(one.pair.prompt for one in batch):
        embeds_sha256 = embeds.get(prompt) or encoded.find_embeds(prompt)
        if embeds_sha256 is None:
            new.append(dump_conditioning(encoder.conditioning(prompt)))
            embeds_sha256 = sha256_hex(new[-1])
        embeds[prompt] = embeds_sha256
    encoded.files.put_all(images=(), latents=latent_files, embeds=new)
    names = [sha256_hex(content) for content in latent_files]
    return [
        EncodedPair(
            prompt=one.pair.prompt,
            files=PairFiles(names[2 * index], names[2 * index + 1], embeds[one.pair.prompt]),
            wins_a=one.pair.wins_a,
            num_votes=one.pair.num_votes,
            source_id=one.pair.source_id,
        )
        for index, one in enumerate(batch)
    ]


FOLDER = "empty-prompts"


@dataclass(frozen=True, slots=True)
class EmptyPrompt:
    """An encoded empty prompt: its file, and a loader of encoders. Called, it gives tensors without batch dimension.

    Several processes that find no file each write the same bytes, whole; `ensure_exists` in one spares the others.
    """

    path: Path
    load_encoder: Callable[[], Encoder]

    @classmethod
    def from_home(cls, home: Path, source: str, base_fingerprint: str, *, device: str, dtype: str) -> EmptyPrompt:
        """The empty prompt of a base model in a home; each precision has a file of its own."""
        precision = str(resolve_dtype(dtype, resolve_device(device))).removeprefix("torch.")
        return cls(
            home / FOLDER / f"{base_fingerprint[:16]}-{precision}.safetensors",
            lambda: Encoder.load(source, device=device, dtype=dtype, resolution=None),
        )

    def __call__(self) -> Conditioning:
        """Load the tensors. Raises StudioError for a damaged file; like `ensure_exists` where there is none."""
        self.ensure_exists()
        return load_conditioning(self.path.read_bytes())

    def ensure_exists(self) -> None:
        """Encode the empty prompt unless its file exists; the encoders are unloaded afterwards.

        Raises like `Encoder.load`, StorageFullError.
        """
        if not self.path.exists():
            self.write_from(self.load_encoder())
            free_memory()

    def write_from(self, encoder: Encoder) -> None:
        """Write the file with encoders that are in memory anyway. Raises StorageFullError."""
        write_atomically(self.path, dump_conditioning(encoder.empty_conditioning()))
