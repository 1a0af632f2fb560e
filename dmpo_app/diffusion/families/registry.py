"""Which family a diffusers pipeline belongs to. Plain values, no torch: the page asks before torch has been imported.

A new family is one file in this folder that holds `FAMILY`, and one line in FAMILIES.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from dmpo_app.domain.lineage import Sampling

if TYPE_CHECKING:
    from dmpo_app.diffusion.families.protocol import ModelFamily


@dataclass(frozen=True, slots=True)
class FamilyEntry:
    """What can be known of a family without loading anything.

    `name` is its module in this folder and what the store records; `component` the denoiser's folder in the model;
    `usual` what its models are commonly sampled with, and `undirected` the same for models whose denoiser has no
    guidance embedding (None: there is no such difference).
    """

    name: str
    component: str
    usual: Sampling
    undirected: Sampling | None = None


FAMILIES: Mapping[str, FamilyEntry] = {
    "StableDiffusionPipeline": FamilyEntry("stable_diffusion", "unet", Sampling(30, 7.5)),
    "StableDiffusionXLPipeline": FamilyEntry("stable_diffusion_xl", "unet", Sampling(30, 5.0)),
    "StableDiffusion3Pipeline": FamilyEntry("stable_diffusion_3", "transformer", Sampling(28, 4.5)),
    "FluxPipeline": FamilyEntry("flux", "transformer", Sampling(28, 3.5), undirected=Sampling(4, 0.0)),
}
"""By the pipeline class that a `model_index.json` names."""


def family_named(name: str) -> ModelFamily:
    """The family of that name. Imports torch and diffusers. Raises KeyError for a name the registry does not know."""
    if name not in {entry.name for entry in FAMILIES.values()}:
        raise KeyError(f"there is no model family {name!r}; there are: {', '.join(e.name for e in FAMILIES.values())}")
    logging.getLogger("transformers.utils.import_utils").addFilter(_is_news)
    module = importlib.import_module(f"dmpo_app.diffusion.families.{name}")
    return cast("ModelFamily", module.FAMILY)


def _is_news(record: logging.LogRecord) -> bool:
    """All but what transformers says of diffusers' imports: that it takes Pillow where torchvision is not installed."""
    return "ImageProcessor` requires torchvision (not installed)" not in record.getMessage()
