"""Samples of the live model as the store takes them."""

from __future__ import annotations

import io

from PIL import Image

from dmpo_app.diffusion.live_model import Sample
from dmpo_app.diffusion.tensor_files import dump_latents
from dmpo_app.domain.image import NewImage


def encode_png(image: Image.Image) -> bytes:
    """The PNG file of an image, without metadata; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def new_image(sample: Sample, *, with_latents: bool = False) -> NewImage:
    """An image about to be stored; with its latents when it is to be trained on."""
    return NewImage(
        png=encode_png(sample.image),
        width=sample.image.width,
        height=sample.image.height,
        provenance=sample.provenance,
        latents=dump_latents(sample.latents) if with_latents else None,
    )
