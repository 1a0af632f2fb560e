"""The render job of ZeroGPU, for a process that has the GPU for a minute: no database, plain values in, bytes out.

State from an earlier call is not trusted: the model is made ready anew for every job, and every adapter is read
from its folder and checked against the hash that the database has for it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dmpo_app.diffusion.adapter_files import read_adapter
from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.diffusion.tensor_files import dump_conditioning
from dmpo_app.domain.lineage import BASE_VERSION, NewImage
from dmpo_app.errors import NotFoundError
from dmpo_app.rendering.engine import image_from_sample, render_shots


@dataclass(frozen=True, slots=True)
class RenderJob:
    """Job that renders `groups` of shots, each in one batch for each version; no group is begun after `seconds`.

    `adapters`: folder and sha256 of every version but 0 that a shot names. `for_training`: with latents and encoded
    prompts, as pairs need them.
    """

    groups: tuple[tuple[Shot, ...], ...]
    adapters: Mapping[int, tuple[Path, str]]
    seconds: float
    num_steps: int | None = None
    guidance: float | None = None
    for_training: bool = False


@dataclass(frozen=True, slots=True)
class RenderResult:
    """The images of a group, in the order of its shots; `flagged` as the model's safety checker has it.

    `prompt_embeds`: the encoded prompt of the group's first shot, where the job is for training.
    """

    group: int
    images: tuple[NewImage, ...]
    flagged: tuple[bool, ...]
    prompt_embeds: bytes | None


def render_job(
    job: RenderJob, model: LiveModel, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[RenderResult]:
    """Render the groups one after another. Raises AdapterError for a version that must not be used, StudioError."""
    started = clock()
    for number, shots in enumerate(job.groups):
        if number and clock() - started >= job.seconds:
            return
        samples = render_shots(
            model, shots, partial(_load_version, job, model), num_steps=job.num_steps, guidance=job.guidance
        )
        yield RenderResult(
            number,
            tuple(image_from_sample(sample, with_latents=job.for_training) for sample in samples),
            tuple(sample.flagged for sample in samples),
            dump_conditioning(model.conditioning(shots[0].prompt)) if job.for_training else None,
        )


def _load_version(job: RenderJob, model: LiveModel, version: int) -> None:
    if version == BASE_VERSION:
        model.swap(BASE_VERSION, None)
        return
    if version not in job.adapters:
        raise NotFoundError(f"version {version} did not come with the images that ask for it")
    if model.version != version:
        model.swap(version, read_adapter(*job.adapters[version]))
