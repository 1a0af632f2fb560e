"""Comparison of two versions by scorers over a list of prompts: images, then scores, then the report.

A version is loaded once and renders all its batches; one scorer at a time is in memory, and no version beside it. What
is finished stays in the folder: after a kill the same run goes on where it was, and ends in the same rows.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.base_models import detect_family, fingerprint, resolve_sampling
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.live_model import LiveModel, RenderInterrupted, Shot
from dmpo_app.diffusion.loading import free_memory, resolve_dtype
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.diffusion.placement import precision_name, resolve_device
from dmpo_app.domain.lineage import BASE_VERSION
from dmpo_app.errors import StudioError
from dmpo_app.exchange.exporting.output_files import import_pyarrow
from dmpo_app.io.files import write_atomically
from dmpo_app.judging.wins_sheet import open_image
from dmpo_app.rendering.engine import encode_png
from dmpo_app.rendering.judging_plan import SIDES, JudgingFolder, JudgingPlan, Side
from dmpo_app.rendering.judging_report import JudgingResult, write_report
from dmpo_app.scoring.registry import Scorer, build_scorer
from dmpo_app.settings import ScorerSettings, Settings

_ADAPTED = 1
"""The version number under which the live model holds whichever adapter is judged."""

OnProgress = Callable[[str, int, int], None]
"""Called with a stage, the batches that are done and all of them."""


class JudgingRun:
    """A comparison in its folder."""

    def __init__(
        self,
        plan: JudgingPlan,
        settings: Settings,
        folder: Path,
        *,
        on_progress: OnProgress,
        should_stop: Callable[[], bool],
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._folder = JudgingFolder(folder, plan)
        self._on_progress = on_progress
        self._should_stop = should_stop

    def run(self) -> JudgingResult | None:
        """Do what is missing, and report; None when stopped before the end.

        Raises BadInputError for a folder with a comparison of other inputs, BusyError while another process works in
        it, and what loading, rendering and scoring raise. Scorers that cannot be had are told before any rendering.
        """
        import_pyarrow()
        with self._folder.claim(self._inputs()):
            identities = {choice.name: self._build_scorer(choice).identity for choice in self._plan.scorers}
            free_memory()
            try:
                self._render()
            except RenderInterrupted:
                return None
            if not all(self._score(choice, identities[choice.name]) for choice in self._plan.scorers):
                return None
            return write_report(self._folder, identities, self._settings.base_model)

    def _inputs(self) -> dict[str, Any]:
        """All that decides an image, by names for people."""
        plan, render = self._plan, self._settings.render
        device = resolve_device(render.device)
        sampling = resolve_sampling(self._settings.base_model, render)
        return {
            "base model": fingerprint(self._settings.base_model),
            "new version": plan.new.identity,
            "old version": plan.old.identity,
            "prompts": f"{len(plan.prompts.prompts)}, sha256 {plan.prompts.sha256}",
            "seeds per prompt": plan.seeds_per_prompt,
            "seed": plan.seed,
            "steps": sampling.num_steps,
            "guidance": sampling.guidance,
            "resolution": render.resolution or "the base model's",
            "sampler": render.sampler,
            "precision": precision_name(resolve_dtype(render.dtype, device), render.quantize),
            "device": device.type,
            "safety checker": render.safety_checker,
            "batch": plan.batch_size,
        }

    def _render(self) -> None:
        """Render the batches that are not there. Raises RenderInterrupted when stopped."""
        total = len(self._plan.batches)
        missing = {side: self._folder.unrendered(side) for side in SIDES}
        for side in SIDES:
            self._on_progress(self._rendering_stage(side), total - len(missing[side]), total)
        if not any(missing.values()):
            return
        model = self._load_model()
        adapters = {side: self._plan.version(side).read(model) for side in SIDES}
        for adapter in adapters.values():  # one that does not fit is told before anything is rendered
            _hold(model, adapter)
        for side in SIDES:
            held_version = _hold(model, adapters[side])
            for done, index in enumerate(missing[side], total - len(missing[side]) + 1):
                self._render_batch(model, side, index, held_version)
                self._on_progress(self._rendering_stage(side), done, total)
        del model
        free_memory()

    def _rendering_stage(self, side: Side) -> str:
        return f"rendering {side}: {self._plan.version(side).label}"

    def _load_model(self) -> LiveModel:
        source = self._settings.base_model
        spec = LoraSpec.from_settings(self._settings.round, get_family(detect_family(source)))
        return LiveModel.load(source, self._settings.render, spec)

    def _render_batch(self, model: LiveModel, side: Side, index: int, held_version: int) -> None:
        batch = self._plan.batches[index]
        shots = [Shot(image.prompt, image.seed, held_version) for image in batch]
        try:
            samples = model.render(shots, should_stop=self._should_stop)
        except torch.OutOfMemoryError as error:
            raise StudioError(
                f"{model.device} ran out of memory; begin in another folder with a smaller --batch or --resolution"
            ) from error
        for image, sample in zip(batch, samples, strict=True):
            write_atomically(self._folder.image_path(side, image), encode_png(sample.image))
        flags = [sample.flagged for sample in samples]
        write_atomically(self._folder.marker_path(side, index), json.dumps({"withheld": flags}).encode())

    def _score(self, choice: ScorerSettings, identity: str) -> bool:
        """Score the batches that are not scored yet; False when stopped before the end."""
        total, missing = len(self._plan.batches), self._folder.unscored(choice.name, identity)
        stage, num_done = f"scoring by {choice.name}", total - len(missing)
        self._on_progress(stage, num_done, total)
        if not missing:
            return True
        scorer = self._build_scorer(choice)
        for done, index in enumerate(missing, num_done + 1):
            if self._should_stop():
                return False
            scores = {side: self._score_batch(scorer, side, index) for side in SIDES}
            write_atomically(self._folder.scores_path(choice.name, identity, index), json.dumps(scores).encode())
            self._on_progress(stage, done, total)
        return True

    def _score_batch(self, scorer: Scorer, side: Side, index: int) -> list[float]:
        batch = self._plan.batches[index]
        images = [open_image(self._folder.image_path(side, image)) for image in batch]
        return [float(score) for score in scorer.score(images, [image.prompt for image in batch])]

    def _build_scorer(self, choice: ScorerSettings) -> Scorer:
        return build_scorer(
            choice.name,
            source=choice.source,
            device=self._settings.render.device,
            batch_size=self._settings.round.scoring.batch_size,
        )


def _hold(model: LiveModel, adapter: AdapterWeights | None) -> int:
    """Load an adapter, None for the base model, and return the version that the model then holds."""
    version = BASE_VERSION if adapter is None else _ADAPTED
    model.swap(version, adapter)
    return version
