"""Registry of the model families by diffusers pipeline class. Plain values, no torch, for the page that starts first.

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
    """Registry entry of a family: the facts that need no loading.

    `name` is its module in this folder and what the store records; `component` the denoiser's folder in the model;
    `default_sampling` what its models are commonly sampled with, and `unguided_sampling` the same for models whose
    denoiser has no guidance embedding (None: there is no such difference).
    """

    name: str
    component: str
    default_sampling: Sampling
    unguided_sampling: Sampling | None = None


FAMILIES: Mapping[str, FamilyEntry] = {
    "StableDiffusionPipeline": FamilyEntry("stable_diffusion", "unet", Sampling(30, 7.5)),
    "StableDiffusionXLPipeline": FamilyEntry("stable_diffusion_xl", "unet", Sampling(30, 5.0)),
    "StableDiffusion3Pipeline": FamilyEntry("stable_diffusion_3", "transformer", Sampling(28, 4.5)),
    "FluxPipeline": FamilyEntry("flux", "transformer", Sampling(28, 3.5), unguided_sampling=Sampling(4, 0.0)),
}
"""By the pipeline class that a `model_index.json` names."""


def get_family(name: str) -> ModelFamily:
    """The family of that name. Imports torch and diffusers. Raises KeyError for a name the registry does not know."""
    if name not in {entry.name for entry in FAMILIES.values()}:
        raise KeyError(f"there is no model family {name!r}; there are: {', '.join(e.name for e in FAMILIES.values())}")
    logging.getLogger("transformers.utils.import_utils").addFilter(_keep_record)
    module = importlib.import_module(f"dmpo_app.diffusion.families.{name}")
    return cast("ModelFamily", module.FAMILY)


def _keep_record(record: logging.LogRecord) -> bool:
    """Log filter that drops transformers' notice of taking Pillow where torchvision is not installed."""
    return "ImageProcessor` requires torchvision (not installed)" not in record.getMessage()
