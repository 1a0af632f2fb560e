"""What `dmpo adapters` does that takes a model: a version's repository with its card and pictures, and merging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from dmpo_app.diffusion.adapter_files import MANIFEST_FILE, WEIGHTS_FILE, read_adapter
from dmpo_app.domain.lineage import BASE_VERSION, AdapterRef
from dmpo_app.domain.render_request import RenderRequest
from dmpo_app.exchange.exporting.model_card import CardPicture, base_name, model_card
from dmpo_app.labeling.quality.quality_service import report_of
from dmpo_app.server.wiring import Lineage, open_lineage, read_prompts
from dmpo_app.settings import Settings

_FIRST_SEED = 1


def write_repository(
    settings: Settings,
    version: int,
    folder: Path,
    *,
    num_prompts: int,
    licence: str,
    on_picture: Callable[[], None] = lambda: None,
) -> AdapterRef:
    """Write what a model repository of this version holds: weights, card, and before/after pictures of the first
    held-out prompts. Raises NotFound, AdapterProblem, ModelUnavailable."""
    with open_lineage(settings) as lineage:
        adapter = lineage.store.adapters.get(lineage.base, version)
        read_adapter(adapter.folder, adapter.sha256)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(adapter.folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        manifest = json.loads((adapter.folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        prompts = read_prompts(settings.pool.held_out_prompts)[:num_prompts]
        pictures = _pictures(lineage, settings, version, prompts, folder, on_picture) if prompts else []
        card = model_card(
            lineage.base,
            adapter,
            manifest,
            report_of(lineage.store, lineage.base, settings),
            pictures,
            licence=licence,
            base_is_on_hub=base_name(manifest) == lineage.base.source,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        return adapter


def _pictures(
    lineage: Lineage,
    settings: Settings,
    version: int,
    prompts: Sequence[str],
    folder: Path,
    on_picture: Callable[[], None],
) -> list[CardPicture]:
    from dmpo_app.rendering.engine import Engine

    engine = Engine.load(lineage.store, lineage.base, settings)
    engine.follow_live()
    (folder / "images").mkdir(exist_ok=True)
    found = []
    for seed, prompt in enumerate(prompts, start=_FIRST_SEED):
        request = RenderRequest(prompt, seed, (BASE_VERSION, version), 1.0)
        names = [f"images/{seed}-base.png", f"images/{seed}-version-{version}.png"]
        for name, made in zip(names, engine.render(request, should_stop=lambda: False), strict=True):
            (folder / name).write_bytes(lineage.store.files.read_image(made.image.sha256))
        found.append(CardPicture(prompt, seed, *names))
        on_picture()
    return found


def merge_version(settings: Settings, version: int, target: Path, *, strength: float) -> None:
    """Write base model and version as one pipeline. Raises NotFound and like `merge_adapter`."""
    from dmpo_app.diffusion.adapter_export import merge_adapter

    with open_lineage(settings) as lineage:
        adapter = lineage.store.adapters.get(lineage.base, version)
    merge_adapter(settings.base_model, adapter.folder, adapter.sha256, target, strength=strength)
