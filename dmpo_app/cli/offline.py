"""Commands that need no server: train, render to files, make starter pairs."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dmpo_app.domain.limits import MAX_SEED
from dmpo_app.domain.lineage import BASE_VERSION, RenderRequest, RoundState, Trigger
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError
from dmpo_app.io.files import users_umask
from dmpo_app.io.processes import StopFlag, stop_signals
from dmpo_app.server.wiring import Lineage, open_lineage
from dmpo_app.settings import Settings

if TYPE_CHECKING:
    from dmpo_app.training.distributed.process_group import ProcessGroup

_POLL_SECONDS = 0.3


def train_until_stopped(settings: Settings) -> None:
    """Run a trainer in this process until SIGTERM or Ctrl-C; a round in progress is checkpointed.

    One of several that torchrun started trains with the first of them for as long as that does, whatever the signal.
    """
    from dmpo_app.training.distributed.process_group import join_process_group
    from dmpo_app.training.process.trainer_process import run_trainer

    with stop_signals() as stopping, join_process_group() as group:
        run_trainer(settings, owner=_owner(), stop_flag=stopping, group=group)


def train_one_round(settings: Settings, on_progress: Callable[[RoundState], None]) -> RoundState:
    """Train one round over the votes there are and return how it ended.

    A studio that runs on this home trains it with its own trainer; otherwise this process does. Raises ConflictError
    when there are too few votes, BadInputError when stopped before the end (the round goes on when a trainer next
    starts).
    """
    from dmpo_app.training.distributed.process_group import join_process_group
    from dmpo_app.training.process.trainer_process import run_trainer

    failures: list[Exception] = []

    def train(stopping: StopFlag, group: ProcessGroup) -> None:
        try:
            run_trainer(settings, owner=_owner(), stop_flag=stopping, group=group)
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that was asked
            failures.append(error)

    with stop_signals() as stopping, join_process_group() as group, open_lineage(settings) as lineage:
        requested_round = _request_round(lineage, settings.labeling.training_question)
        trainer = threading.Thread(target=train, args=(stopping, group), daemon=True)
        trainer.start()
        state = requested_round
        while trainer.is_alive() and not stopping.wait(_POLL_SECONDS):
            state = lineage.store.rounds.get(requested_round.id)
            on_progress(state)
            if state.finished_at is not None:
                stopping.set()
        trainer.join()
        state = lineage.store.rounds.get(requested_round.id)
    if state.finished_at is None:
        if failures:
            raise failures[0]
        raise BadInputError(f"round {state.id} was stopped at step {state.step}; it goes on when a trainer next starts")
    return state


def _request_round(lineage: Lineage, question: Question) -> RoundState:
    try:
        return lineage.store.rounds.request(lineage.base, Trigger.REQUEST, question=question, by="cli")
    except ConflictError:
        current = lineage.store.rounds.current(lineage.base)
        if current is None:
            raise
        return current


def _owner() -> str:
    return f"dmpo-train@{socket.gethostname()}:{os.getpid()}"


def encode_imported(
    lineage: Lineage, settings: Settings, on_progress: Callable[[int], None], should_stop: Callable[[], bool]
) -> None:
    """Encode the latents of all imported pairs that have none. Raises like `Encoder.load`.

    `on_progress` is called with the number of pairs left.
    """
    from dmpo_app.diffusion.loading import Encoder
    from dmpo_app.rendering.engine import ImportEncoder

    render = settings.render
    encoder = Encoder.load(settings.base_model, device=render.device, dtype=render.dtype, resolution=render.resolution)
    work = ImportEncoder(lineage.store, lineage.base, encoder)
    while not should_stop() and work.step():
        encoding_progress = lineage.store.imports.encoding_progress(lineage.base)
        on_progress(0 if encoding_progress is None else encoding_progress.total - encoding_progress.done)


def render_to_files(
    settings: Settings, prompt: str, seeds: Iterable[int], versions: str, strength: float, folder: Path
) -> Iterator[Path]:
    """Render every seed under every version into `folder`, yielding each file's path as it is written.

    `versions` is a comma-separated list of numbers and `live`. Raises BadInputError or NotFoundError for one there is
    not.
    """
    with users_umask():
        folder.mkdir(parents=True, exist_ok=True)
    with open_lineage(settings) as lineage:
        version_numbers = _version_numbers(versions, lineage)
        from dmpo_app.rendering.engine import Engine

        engine = Engine.load(lineage.store, lineage.base, settings)
        engine.sync_live_version()
        for seed in seeds:
            for rendered_image in engine.render(
                RenderRequest(prompt, seed, version_numbers, strength), should_stop=lambda: False
            ):
                path = folder / f"seed-{seed}-version-{rendered_image.version}.png"
                with users_umask():
                    path.write_bytes(lineage.store.files.read_image(rendered_image.image.sha256))
                if rendered_image.withheld:
                    logging.getLogger(__name__).warning("%s is black: the model's safety checker flagged it", path)
                yield path


def _version_numbers(text: str, lineage: Lineage) -> tuple[int, ...]:
    live = lineage.store.adapters.live_version(lineage.base)
    numbers: list[int] = []
    for word in text.split(","):
        if word.strip() == "live":
            numbers.append(live)
        elif word.strip().isdigit():
            numbers.append(int(word))
        else:
            raise BadInputError(f"{word!r} is no version; expected numbers and 'live', for example 0,2,live")
    existing_versions = {BASE_VERSION, *(adapter.version for adapter in lineage.store.adapters.list(lineage.base))}
    if missing := [number for number in numbers if number not in existing_versions]:
        raise NotFoundError(
            f"there is no version {missing[0]}; there are: {', '.join(map(str, sorted(existing_versions)))}"
        )
    return tuple(dict.fromkeys(numbers))


def make_starter_pairs(settings: Settings, count: int, seed: int) -> Iterator[int]:
    """Render `count` pairs of the base model, one of each of as many training prompts, and write the starter file.

    With one thread: the number decides an image's last bits, and every machine has one.
    """
    import torch

    from dmpo_app.diffusion.base_models import detect_family, fingerprint
    from dmpo_app.diffusion.families.registry import get_family
    from dmpo_app.diffusion.live_model import LiveModel, Shot
    from dmpo_app.diffusion.lora import LoraSpec
    from dmpo_app.diffusion.tensor_files import dump_conditioning
    from dmpo_app.domain.lineage import NewPair, PairSource
    from dmpo_app.exchange.importing.starter_pairs import write_starter_pairs
    from dmpo_app.rendering.engine import image_from_sample
    from dmpo_app.server.wiring import read_prompts

    torch.set_num_threads(1)
    rng = random.Random(seed)
    spec = LoraSpec.from_settings(settings.round, get_family(detect_family(settings.base_model)))
    model = LiveModel.load(settings.base_model, settings.render, spec)
    prompts = read_prompts(settings.pool.train_prompts)
    pairs = []
    for index, prompt in enumerate(rng.sample(prompts, min(count, len(prompts)))):
        shots = [Shot(prompt, rng.randrange(MAX_SEED + 1), BASE_VERSION) for _ in range(2)]
        first, second = (image_from_sample(sample, with_latents=True) for sample in model.render(shots))
        embeds = dump_conditioning(model.conditioning(prompt))
        pairs.append(NewPair(prompt, first, second, embeds, PairSource.STARTER))
        yield index
    with users_umask():
        write_starter_pairs(settings.pool.starter_pairs, fingerprint(settings.base_model), pairs)
    logging.getLogger(__name__).info("wrote %s", settings.pool.starter_pairs)
