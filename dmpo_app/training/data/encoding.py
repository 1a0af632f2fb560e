"""The one pass over a data set that turns images and prompts into what the denoiser works on.

Shapes:  H W height and width of pictures in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

from dmpo_app.diffusion.encoder import Encoder, Pixels, fitted
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents
from dmpo_app.exchange.readers.image_sources import picture_of
from dmpo_app.exchange.readers.pair import LeftOut, PreferencePair
from dmpo_app.exchange.readers.reader import PreferenceReader, Row, read_row
from dmpo_app.exchange.readers.source import PreferenceSource
from dmpo_app.store.files import sha256_of
from dmpo_app.training.data.encoded_pairs import Counts, EncodedBatch, EncodedPair, EncodedPairs
from dmpo_app.training.data.pair_tensors import PairFiles

_MAX_THREADS = 8


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A pair with its pictures (H, W, 3) cut to size."""

    pair: PreferencePair
    picture_a: Pixels
    picture_b: Pixels


def encode_pairs(
    source: PreferenceSource,
    reader: PreferenceReader,
    encoded: EncodedPairs,
    load_encoder: Callable[[], Encoder],
    *,
    batch_pairs: int,
    limit: int | None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Counts], None] = lambda _: None,
) -> bool:
    """Encode what `encoded` lacks, until there are `limit` pairs or the data set ends. False when told to stop.

    No more rows are read than that takes, and the encoder is loaded only when there is something to encode. A batch
    begins where the last one recorded ended, so that a pass that was killed and taken up again makes the very batches,
    and so the very bits, of one that was not. Raises StudioError when reading fails, StorageFull.
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
            wanted = batch_pairs if limit is None else min(batch_pairs, limit - encoded.counts.pairs)
            taken = list(islice(rows, wanted))
            first = encoded.counts.rows
            prepare = partial(_prepare, reader, source, encoder.size)
            found = [one for row in pool.map(prepare, range(first, first + len(taken)), taken) for one in row]
            pairs = [one for one in found if isinstance(one, _Prepared)]
            left_out = [(one.reason, one.source_id) for one in found if isinstance(one, LeftOut)]
            batches = [pairs[start : start + batch_pairs] for start in range(0, len(pairs), batch_pairs)]
            embeds: dict[str, str] = {}
            done = [pair for batch in batches for pair in _encode(batch, encoder, encoded, embeds)]
            is_last = len(taken) < wanted
            encoded.append(EncodedBatch(len(taken), done, left_out, stream.bookmark(), is_last))
            on_progress(encoded.counts)
    return True


def _is_enough(encoded: EncodedPairs, limit: int | None) -> bool:
    return encoded.is_complete or (limit is not None and encoded.counts.pairs >= limit)


def _prepare(
    reader: PreferenceReader, source: PreferenceSource, size: tuple[int, int], number: int, row: Row
) -> list[_Prepared | LeftOut]:
    return [
        found if isinstance(found, LeftOut) else _Prepared(found, *_pictures(found, size))
        for found in read_row(reader, row, str(number), source.folder)
    ]


def _pictures(pair: PreferencePair, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    return fitted(picture_of(pair.image_a), size), fitted(picture_of(pair.image_b), size)


def _encode(
    batch: Sequence[_Prepared], encoder: Encoder, encoded: EncodedPairs, embeds: dict[str, str]
) -> list[EncodedPair]:
    """The pairs with their files stored. `embeds` are prompts encoded since the last batch was recorded."""
    latents = encoder.latents([picture for one in batch for picture in (one.picture_a, one.picture_b)])
    images = [dump_latents(image) for image in latents]
    new: list[bytes] = []
    for prompt in dict.fromkeys(one.pair.prompt for one in batch):
        known = embeds.get(prompt) or encoded.embeds_of(prompt)
        if known is None:
            new.append(dump_conditioning(encoder.conditioning(prompt)))
            known = sha256_of(new[-1])
        embeds[prompt] = known
    encoded.files.put_all(images=(), latents=images, embeds=new)
    names = [sha256_of(content) for content in images]
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
