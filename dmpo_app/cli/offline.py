"""What the `dmpo` command does without a server: train, render to files, make starter pairs."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.domain.render_request import RenderRequest
from dmpo_app.domain.round import RoundState, Trigger
from dmpo_app.domain.vote import Question
from dmpo_app.errors import BadInput, Conflict, NotFound
from dmpo_app.io import stop_signals
from dmpo_app.server.wiring import Lineage, open_lineage
from dmpo_app.settings import Settings

if TYPE_CHECKING:
    from dmpo_app.training.distributed.process_group import Group

_POLL_SECONDS = 0.3


def train_until_stopped(settings: Settings) -> None:
    """Run a trainer in this process until SIGTERM or Ctrl-C; a round in progress is checkpointed.

    One of several that torchrun started trains with the first of them for as long as that does, whatever the signal.
    """
    from dmpo_app.training.distributed.process_group import joined
    from dmpo_app.training.process.trainer_process import run_worker

    with stop_signals() as stopping, joined() as group:
        run_worker(settings, owner=_owner(), stopping=stopping, group=group)


def train_one_round(settings: Settings, on_progress: Callable[[RoundState], None]) -> RoundState:
    """Train one round over the votes there are and return how it ended.

    A studio that runs on this home trains it with its own trainer; otherwise this process does. Raises Conflict when
    there are too few votes, BadInput when stopped before the end (the round goes on when a trainer next starts).
    """
    from dmpo_app.training.distributed.process_group import joined
    from dmpo_app.training.process.trainer_process import run_worker

    failures: list[Exception] = []

    def train(stopping: threading.Event, group: Group) -> None:
        try:
            run_worker(settings, owner=_owner(), stopping=stopping, group=group)
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that was asked
            failures.append(error)

    with stop_signals() as stopping, joined() as group, open_lineage(settings) as lineage:
        wanted = _request_round(lineage, settings.labeling.training_question)
        trainer = threading.Thread(target=train, args=(stopping, group), daemon=True)
        trainer.start()
        state = wanted
        while trainer.is_alive() and not stopping.wait(_POLL_SECONDS):
            state = lineage.store.rounds.get(wanted.id)
            on_progress(state)
            if state.finished_at is not None:
                stopping.set()
        trainer.join()
        state = lineage.store.rounds.get(wanted.id)
    if state.finished_at is None:
        if failures:
            raise failures[0]
        raise BadInput(f"round {state.id} was stopped at step {state.step}; it goes on when a trainer next starts")
    return state


def _request_round(lineage: Lineage, question: Question) -> RoundState:
    try:
        return lineage.store.rounds.request(lineage.base, Trigger.REQUEST, question=question, by="cli")
    except Conflict:
        current = lineage.store.rounds.current(lineage.base)
        if current is None:
            raise
        return current


def _owner() -> str:
    return f"dmpo-train@{socket.gethostname()}:{os.getpid()}"


def encode_imported(
    lineage: Lineage, settings: Settings, on_progress: Callable[[int], None], should_stop: Callable[[], bool]
) -> None:
    """Make latents of all imported pairs that have none; `on_progress` is told how many are left. Raises like
    `Encoder.load`."""
    from dmpo_app.diffusion.encoder import Encoder
    from dmpo_app.rendering.import_encoding import ImportEncoder

    render = settings.render
    encoder = Encoder.load(settings.base_model, device=render.device, dtype=render.dtype, resolution=render.resolution)
    work = ImportEncoder(lineage.store, lineage.base, encoder)
    while not should_stop() and work.step():
        left = lineage.store.imports.encoding(lineage.base)
        on_progress(0 if left is None else left.total - left.done)


def render_to_files(
    settings: Settings, prompt: str, seeds: Iterable[int], versions: str, strength: float, folder: Path
) -> Iterator[Path]:
    """Render every seed under every version into `folder`, yielding each file's path as it is written.

    `versions` is a comma-separated list of numbers and `live`. Raises BadInput or NotFound for one there is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open_lineage(settings) as lineage:
        wanted = _version_numbers(versions, lineage)
        from dmpo_app.rendering.engine import Engine

        engine = Engine.load(lineage.store, lineage.base, settings)
        engine.follow_live()
        for seed in seeds:
            for made in engine.render(RenderRequest(prompt, seed, wanted, strength), should_stop=lambda: False):
                path = folder / f"seed-{seed}-version-{made.version}.png"
                path.write_bytes(lineage.store.files.read_image(made.image.sha256))
                if made.withheld:
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
            raise BadInput(f"{word!r} is no version; expected numbers and 'live', for example 0,2,live")
    known = {BASE_VERSION, *(adapter.version for adapter in lineage.store.adapters.list(lineage.base))}
    if missing := [number for number in numbers if number not in known]:
        raise NotFound(f"there is no version {missing[0]}; there are: {', '.join(map(str, sorted(known)))}")
    return tuple(dict.fromkeys(numbers))


def make_starter_pairs(settings: Settings, count: int, seed: int) -> Iterator[int]:
    """Render `count` pairs of the base model, one of each of as many training prompts, and write the starter file.

    With one thread: the number decides an image's last bits, and every machine has one.
    """
    import torch

    from dmpo_app.diffusion.base_models import family_of, fingerprint
    from dmpo_app.diffusion.families.registry import family_named
    from dmpo_app.diffusion.live_model import LiveModel, Shot
    from dmpo_app.diffusion.lora import LoraSpec
    from dmpo_app.diffusion.tensor_files import dump_conditioning
    from dmpo_app.domain.image import NewPair, PairSource
    from dmpo_app.exchange.importing.starter_pairs import write_starter_pairs
    from dmpo_app.rendering.engine import new_image
    from dmpo_app.server.wiring import read_prompts

    torch.set_num_threads(1)
    rng = random.Random(seed)
    spec = LoraSpec.of(settings.round, family_named(family_of(settings.base_model)))
    model = LiveModel.load(settings.base_model, settings.render, spec)
    prompts = read_prompts(settings.pool.train_prompts)
    pairs = []
    for index, prompt in enumerate(rng.sample(prompts, min(count, len(prompts)))):
        shots = [Shot(prompt, rng.randrange(2**31), BASE_VERSION) for _ in range(2)]
        first, second = (new_image(sample, with_latents=True) for sample in model.render(shots))
        embeds = dump_conditioning(model.conditioning(prompt))
        pairs.append(NewPair(prompt, first, second, embeds, PairSource.STARTER))
        yield index
    write_starter_pairs(settings.pool.starter_pairs, fingerprint(settings.base_model), pairs)
    logging.getLogger(__name__).info("wrote %s", settings.pool.starter_pairs)
