"""Encoding of imported pairs: latents and prompt embeddings of images that were not rendered here. Imports torch.

Images are enlarged or reduced until they cover the base model's size and cut around the middle: a pair of two sizes
becomes one of the same.
"""

import logging

from dmpo_app.diffusion.encoder import Encoder, Pixels, resize_and_crop
from dmpo_app.diffusion.tensor_files import dump_conditioning, dump_latents
from dmpo_app.domain.data_import import UnencodedPair
from dmpo_app.domain.image import BaseModelRef
from dmpo_app.errors import NotFoundError
from dmpo_app.exchange.readers.pair import UnusableImageError, decode_image
from dmpo_app.store import Store

BATCH_PAIRS = 4
"""A person who asks for an image waits for at most one batch."""

_log = logging.getLogger(__name__)


class ImportEncoder:
    """Encoder of the imported pairs that lack latents, a batch at a time, each pair once.

    A pair whose image files were deleted by hand is passed over until the next start.
    """

    def __init__(self, store: Store, base: BaseModelRef, encoder: Encoder) -> None:
        self._store = store
        self._base = base
        self._encoder = encoder
        self._last_pair_id = 0

    def step(self) -> bool:
        """Encode the next batch; False when there is nothing to encode. Raises StorageFullError."""
        pairs = self._store.imports.list_unencoded(self._base, after=self._last_pair_id, limit=BATCH_PAIRS)
        if not pairs:
            return False
        usable: list[UnencodedPair] = []
        images: list[Pixels] = []
        for pair in pairs:
            try:
                images += [self._load_image(pair.png_a), self._load_image(pair.png_b)]
            except (NotFoundError, UnusableImageError) as error:
                _log.warning("the imported pair %d cannot be encoded: %s", pair.id, error)
                del images[2 * len(usable) :]
            else:
                usable.append(pair)
        if usable:
            latents = [dump_latents(one) for one in self._encoder.latents(images)]
            both = {pair.id: (latents[2 * n], latents[2 * n + 1]) for n, pair in enumerate(usable)}
            self._store.imports.record_encoding(self._base, both, self._embeds(usable))
        self._last_pair_id = pairs[-1].id
        return True

    def _load_image(self, sha256: str) -> Pixels:
        return resize_and_crop(decode_image(self._store.files.read_image(sha256)), self._encoder.size)

    def _embeds(self, pairs: list[UnencodedPair]) -> dict[str, bytes]:
        prompts = dict.fromkeys(pair.prompt for pair in pairs if not pair.has_embeds)
        return {prompt: dump_conditioning(self._encoder.conditioning(prompt)) for prompt in prompts}
