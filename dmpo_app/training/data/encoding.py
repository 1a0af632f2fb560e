"""Encoding of a data set's images and prompts into what the denoiser takes, and the encoded pairs on disk.

The trainer has no text encoder. Encoders are loaded for this once, before the denoiser is, and what they give is kept
in files. A round of votes, whose pairs are encoded already, needs of them only the empty prompt, where captions are
dropped.

On disk, tensors are files named by their content, and an index is only ever appended to:

    pairs.jsonl     a line a batch: the pairs in it, the rows left out and why, and where reading goes on
    latents/        the files of `store.files.Files`
    embeds/

A line is written and flushed after the files that it names. A line that a kill cut short is dropped, its files are
found again by their content; so a row is encoded once and counted once, whenever the process died.

Shapes:  H W height and width of images in pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Self, overload

from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.loading import Encoder, Pixels, free_memory, resize_and_crop, resolve_dtype
from dmpo_app.diffusion.placement import resolve_device
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents, load_conditioning
from dmpo_app.errors import StudioError
from dmpo_app.exchange.readers.reader import (
    LeftOutPair,
    LeftOutReason,
    PreferencePair,
    PreferenceReader,
    Row,
    decode_image,
    read_row,
)
from dmpo_app.exchange.readers.source import Bookmark, PreferenceSource, open_rows
from dmpo_app.io.files import append_durably, flush_to_disk, sha256_hex, write_atomically
from dmpo_app.settings.resources import available_cores
from dmpo_app.store.files import Files
from dmpo_app.training.data.dataset import PairFiles

INDEX_FILE = "pairs.jsonl"
_SHA_BYTES = 32


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """An encoded pair, whose tensors are files."""

    prompt: str
    files: PairFiles
    wins_a: float
    num_votes: int
    source_id: str


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """The encoded pairs of some consecutive rows. `is_last`: the data set has no more."""

    num_rows: int
    pairs: Sequence[EncodedPair]
    left_out: Sequence[tuple[LeftOutReason, str]]
    bookmark: Bookmark
    is_last: bool


@dataclass(slots=True)
class EncodingCounts:
    """Counts of an encoding: rows read, pairs to learn from, ties among them, and rows left out, by reason."""

    rows: int = 0
    pairs: int = 0
    ties: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, batch: EncodedBatch) -> None:
        self.rows += batch.num_rows
        self.pairs += len(batch.pairs)
        self.ties += sum(pair.wins_a == 0.5 for pair in batch.pairs)
        self.left_out.update(reason.value for reason, _ in batch.left_out)

    def to_dict(self) -> dict[str, Any]:
        """Serialize for a manifest."""
        return {
            "rows": self.rows,
            "pairs": self.pairs,
            "ties": self.ties,
            "left_out": dict(sorted(self.left_out.items())),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncodingCounts:
        return cls(values["rows"], values["pairs"], values["ties"], Counter(values["left_out"]))


class PackedFiles(Sequence[PairFiles]):
    """Packed file hashes of many pairs, 96 bytes each."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // (3 * _SHA_BYTES)

    @overload
    def __getitem__(self, index: int) -> PairFiles: ...

    @overload
    def __getitem__(self, index: slice) -> PackedFiles: ...

    def __getitem__(self, index: int | slice) -> PairFiles | PackedFiles:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        entry = self._entry(range(len(self))[index])
        names = [entry[start : start + _SHA_BYTES].hex() for start in range(0, len(entry), _SHA_BYTES)]
        return PairFiles(*names)

    def select(self, indices: Iterable[int]) -> PackedFiles:
        """Select the entries at these indices, in their order."""
        return PackedFiles(b"".join(map(self._entry, indices)))

    def __bytes__(self) -> bytes:
        return self._packed

    def _entry(self, number: int) -> bytes:
        return self._packed[number * 3 * _SHA_BYTES : (number + 1) * 3 * _SHA_BYTES]


@dataclass(frozen=True, slots=True)
class PairTable:
    """Table of all pairs of an index, as little of each as training needs; a prompt's text is held once."""

    prompts: Sequence[str]
    files: PackedFiles
    wins_a: Sequence[float]
    num_votes: Sequence[float]

    def digest(self) -> str:
        """The sha256 (hex) of the whole table."""
        digest = hashlib.sha256(bytes(self.files))
        for values in (self.prompts, self.wins_a, self.num_votes):
            digest.update(json.dumps(list(values)).encode())
        return digest.hexdigest()


class EncodedPairs:
    """The folder of encoded pairs. One process at a time writes to it; `writes` is False in others that read it."""

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self.files = Files(folder)
        self.counts = EncodingCounts()
        self.bookmark: Bookmark | None = None
        """The position in the data set where reading goes on; None: at the beginning."""
        self.is_complete = False
        """True when the data set has been read to its end."""
        self._path = folder / INDEX_FILE
        if writes:
            self._truncate_partial_line()
        self._embeds: dict[str, str] = {}
        for batch in self._batches():
            self._take(batch)

    def find_embeds(self, prompt: str) -> str | None:
        """Find the file of a prompt that has been encoded already."""
        return self._embeds.get(prompt)

    def append(self, batch: EncodedBatch) -> None:
        """Record a batch whose files are stored; durable on return. Raises StorageFullError."""
        line = json.dumps(_batch_to_json(batch), ensure_ascii=False, separators=(",", ":"))
        append_durably(self._path, line.encode("utf-8", "surrogatepass") + b"\n")
        self._take(batch)

    def counts_up_to(self, limit: int | None) -> EncodingCounts:
        """Count what was read until there were `limit` pairs; an earlier command may have encoded more."""
        counts = EncodingCounts()
        for batch in self._batches():
            if limit is not None and counts.pairs >= limit:
                break
            counts.add(batch)
        return counts

    def load_table(self, limit: int | None = None) -> PairTable:
        """Load the table of the first `limit` pairs, or of all."""
        texts: dict[str, str] = {}
        prompts: list[str] = []
        packed, wins, votes = bytearray(), array("f"), array("f")
        for batch in self._batches():
            for pair in batch.pairs:
                if limit is not None and len(prompts) >= limit:
                    break
                prompts.append(texts.setdefault(pair.prompt, pair.prompt))
                for name in (pair.files.latents_a, pair.files.latents_b, pair.files.prompt_embeds):
                    packed += bytes.fromhex(name)
                wins.append(pair.wins_a)
                votes.append(pair.num_votes)
        return PairTable(prompts, PackedFiles(bytes(packed)), wins, votes)

    def _take(self, batch: EncodedBatch) -> None:
        self.counts.add(batch)
        self.bookmark, self.is_complete = batch.bookmark, batch.is_last
        for pair in batch.pairs:
            self._embeds.setdefault(pair.prompt, pair.files.prompt_embeds)

    def _batches(self) -> Iterator[EncodedBatch]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _batch_from_json(json.loads(line.decode("utf-8", "surrogatepass")))
                except (ValueError, KeyError, TypeError) as error:
                    raise StudioError(
                        f"line {number} of {self._path} cannot be read ({error}); was it edited? Delete the folder to "
                        "encode the data set again"
                    ) from error

    def _truncate_partial_line(self) -> None:
        """Truncate a partial line at the end of the index, which was being written when the process died."""
        if not self._path.exists():
            return
        with self._path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0:
                start = max(0, end - (1 << 16))
                file.seek(start)
                newline_at = file.read(end - start).rfind(b"\n")
                if newline_at >= 0:
                    end = start + newline_at + 1
                    break
                end = start
            file.truncate(end)
            flush_to_disk(file)


def _batch_to_json(batch: EncodedBatch) -> dict[str, Any]:
    return {
        "rows": batch.num_rows,
        "pairs": [
            [
                pair.prompt,
                pair.files.latents_a,
                pair.files.latents_b,
                pair.files.prompt_embeds,
                pair.wins_a,
                pair.num_votes,
                pair.source_id,
            ]
            for pair in batch.pairs
        ],
        "left_out": [[reason.value, source_id] for reason, source_id in batch.left_out],
        "bookmark": batch.bookmark,
        "is_last": batch.is_last,
    }


def _batch_from_json(values: dict[str, Any]) -> EncodedBatch:
    return EncodedBatch(
        num_rows=values["rows"],
        pairs=[
            EncodedPair(prompt, PairFiles(latents_a, latents_b, embeds), wins_a, num_votes, source_id)
            for prompt, latents_a, latents_b, embeds, wins_a, num_votes, source_id in values["pairs"]
        ],
        left_out=[(LeftOutReason(reason), source_id) for reason, source_id in values["left_out"]],
        bookmark=values["bookmark"],
        is_last=values["is_last"],
    )


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
    stream = open_rows(source, reader, encoded.bookmark, encoded.counts.rows)
    rows = iter(stream)
    threads = min(_MAX_THREADS, available_cores())
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        while not _is_enough(encoded, limit):
            if should_stop():
                return False
            num_rows = batch_pairs if limit is None else min(batch_pairs, limit - encoded.counts.pairs)
            batch_rows = list(islice(rows, num_rows))
            first = encoded.counts.rows
            prepare = partial(_prepare_row, reader, source, encoder.size)
            prepared_pairs = [
                one for row in pool.map(prepare, range(first, first + len(batch_rows)), batch_rows) for one in row
            ]
            pairs = [one for one in prepared_pairs if isinstance(one, _PreparedPair)]
            left_out = [(one.reason, one.source_id) for one in prepared_pairs if isinstance(one, LeftOutPair)]
            batches = [pairs[start : start + batch_pairs] for start in range(0, len(pairs), batch_pairs)]
            embeds: dict[str, str] = {}
            new_pairs = [pair for batch in batches for pair in _encode_batch(batch, encoder, encoded, embeds)]
            is_last = len(batch_rows) < num_rows
            encoded.append(EncodedBatch(len(batch_rows), new_pairs, left_out, stream.bookmark(), is_last))
            on_progress(encoded.counts)
    return True


def _is_enough(encoded: EncodedPairs, limit: int | None) -> bool:
    return encoded.is_complete or (limit is not None and encoded.counts.pairs >= limit)


def _prepare_row(
    reader: PreferenceReader, source: PreferenceSource, size: tuple[int, int], number: int, row: Row
) -> list[_PreparedPair | LeftOutPair]:
    return [
        pair if isinstance(pair, LeftOutPair) else _PreparedPair(pair, *_load_images(pair, size))
        for pair in read_row(reader, row, str(number), source.folder)
    ]


def _load_images(pair: PreferencePair, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    return resize_and_crop(decode_image(pair.image_a), size), resize_and_crop(decode_image(pair.image_b), size)


def _encode_batch(
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


EMPTY_PROMPTS_FOLDER = "empty-prompts"


@dataclass(frozen=True, slots=True)
class EmptyPrompt:
    """An encoded empty prompt: its file, and a loader of encoders. Called, it gives tensors without batch dimension.

    Several processes that find no file each write the same bytes, whole; `ensure_exists` in one spares the others.
    """

    path: Path
    load_encoder: Callable[[], Encoder]

    @classmethod
    def from_home(cls, home: Path, source: str, base_fingerprint: str, *, device: str, dtype: str) -> Self:
        """The empty prompt of a base model in a home; each precision has a file of its own."""
        precision = str(resolve_dtype(dtype, resolve_device(device))).removeprefix("torch.")
        return cls(
            home / EMPTY_PROMPTS_FOLDER / f"{base_fingerprint[:16]}-{precision}.safetensors",
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
