"""Adapter commands that need the model: a version's repository with its card and images, and merging."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from dmpo_app.diffusion.adapter_files import MANIFEST_FILE, WEIGHTS_FILE, read_adapter
from dmpo_app.domain.image import BASE_VERSION, AdapterRef, RenderRequest
from dmpo_app.exchange.exporting.cards import CardImages, base_model_name, model_card
from dmpo_app.labeling.quality.quality_report import build_report
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
    on_image: Callable[[], None] = lambda: None,
) -> AdapterRef:
    """Write the model repository of a version: weights, card, and before/after images of the first held-out prompts.

    Raises NotFoundError, AdapterError, ModelUnavailableError.
    """
    with open_lineage(settings) as lineage:
        adapter = lineage.store.adapters.get(lineage.base, version)
        read_adapter(adapter.folder, adapter.sha256)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(adapter.folder / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        manifest = json.loads((adapter.folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        prompts = read_prompts(settings.pool.held_out_prompts)[:num_prompts]
        card_images = _render_before_after(lineage, settings, version, prompts, folder, on_image) if prompts else []
        card = model_card(
            lineage.base,
            adapter,
            manifest,
            build_report(lineage.store, lineage.base, settings),
            card_images,
            licence=licence,
            base_is_on_hub=base_model_name(manifest) == lineage.base.source,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        return adapter


def _render_before_after(
    lineage: Lineage,
    settings: Settings,
    version: int,
    prompts: Sequence[str],
    folder: Path,
    on_image: Callable[[], None],
) -> list[CardImages]:
    from dmpo_app.rendering.engine import Engine

    engine = Engine.load(lineage.store, lineage.base, settings)
    engine.sync_live_version()
    (folder / "images").mkdir(exist_ok=True)
    card_images = []
    for seed, prompt in enumerate(prompts, start=_FIRST_SEED):
        request = RenderRequest(prompt, seed, (BASE_VERSION, version), 1.0)
        names = [f"images/{seed}-base.png", f"images/{seed}-version-{version}.png"]
        for name, rendered_image in zip(names, engine.render(request, should_stop=lambda: False), strict=True):
            (folder / name).write_bytes(lineage.store.files.read_image(rendered_image.image.sha256))
        card_images.append(CardImages(prompt, seed, *names))
        on_image()
    return card_images


def merge_version(settings: Settings, version: int, target: Path, *, strength: float) -> None:
    """Write base model and version as one pipeline. Raises NotFoundError and like `merge_adapter`."""
    from dmpo_app.diffusion.adapter_files import merge_adapter

    with open_lineage(settings) as lineage:
        adapter = lineage.store.adapters.get(lineage.base, version)
    merge_adapter(settings.base_model, adapter.folder, adapter.sha256, target, strength=strength)
