"""`dmpo adapters`: the versions of a home: listed, rolled back, copied, merged, and published on the Hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dmpo_app.cli.terminal import StudioContext, StudioTyper, exit_on_error, out, progress
from dmpo_app.domain.judging import VersionState
from dmpo_app.domain.limits import MAX_STRENGTH
from dmpo_app.domain.lineage import BASE_VERSION, AdapterRef, RenderRequest
from dmpo_app.domain.verdict import GateVerdict
from dmpo_app.errors import BadInputError
from dmpo_app.io.files import users_umask

if TYPE_CHECKING:
    from dmpo_app.domain.effects import VersionComparison
    from dmpo_app.exchange.exporting.cards import CardImages
    from dmpo_app.server.wiring import Lineage
    from dmpo_app.settings import Settings

_FIRST_SEED = 1

app = StudioTyper(help="The versions a lineage has published.")


@app.command("list")
def list_adapters(context: StudioContext) -> None:
    """List the versions, oldest first, with their states; * marks the live one.

    "taken back" counts the votes a version learned from that were taken back since, or count no more.
    """
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(context.load_settings()) as lineage:
            states = lineage.store.adapters.states(lineage.base)
            taken_back = lineage.store.taken_back.counts(lineage.base)
            table = Table("", "version", "parent", "votes", "proven", box=None)
            table.add_column("published", no_wrap=True)  # 80 characters are enough for all but a long state
            table.add_column("state")
            if taken_back:
                table.add_column("taken back")
            table.add_row(_live_mark(states[0]), "0", "", "", "", "the base model", states[0].words)
            for adapter in lineage.store.adapters.list(lineage.base):
                table.add_row(
                    _live_mark(states[adapter.version]),
                    str(adapter.version),
                    str(adapter.parent),
                    str(adapter.num_votes),
                    "yes" if adapter.proven else "not yet",
                    f"{adapter.created_at:%Y-%m-%d %H:%M} UTC",
                    states[adapter.version].words,
                    *([str(taken_back.get(adapter.version, ""))] if taken_back else []),
                )
        out.print(table)


def _live_mark(state: VersionState) -> str:
    return "*" if state is VersionState.LIVE else ""


@app.command("show")
def show_adapter(context: StudioContext, version: int) -> None:
    """Say what a version learned: agreement with votes it has not seen, and its effects on images."""
    with exit_on_error():
        from dmpo_app.domain.effects import say_what_was_learned
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(context.load_settings()) as lineage:
            adapter = lineage.store.adapters.get(lineage.base, version)
            comparisons = lineage.store.effects.list(lineage.base, version)
        effects = [one.effects.sentence for one in comparisons]
        verdict = GateVerdict.from_metrics(adapter.metrics)
        sentences = [verdict.sentence, *effects] if verdict else say_what_was_learned(adapter.metrics, effects)
        for sentence in sentences or [f"Nothing is known yet of what version {version} learned."]:
            out.print(sentence, highlight=False, markup=False)
        for comparison in comparisons[:1]:
            out.print(_effects_table(comparison))
            for change in comparison.effects.prompts_changed_most:
                line = f"{change.change:.1f} % changed: {change.prompt}"
                out.print(line, highlight=False, markup=False)


def _effects_table(comparison: VersionComparison) -> Table:
    effects = comparison.effects
    table = Table("measure", "size", "95 % interval", "unit", "images", "p", "", box=None)
    for effect in effects.measures:
        table.add_row(
            effect.measure,
            f"{effect.size:+.2g}",
            f"{effect.low:+.2g} to {effect.high:+.2g}",
            effect.unit,
            f"{effect.num_agreeing} of {effects.num_images} {effect.words}",
            f"{effect.p_value:.3f}",
            "moved" if effect.moved else "",
        )
    return table


@app.command("live")
def set_live(context: StudioContext, version: int) -> None:
    """Make a version live (0 is the base model). A running studio follows before its next image."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(context.load_settings()) as lineage:
            lineage.store.adapters.set_live(lineage.base, version, by="cli")
            taken_back = lineage.store.taken_back.count(lineage.base, version)
        out.print(f"version {version} is live")
        if taken_back:
            out.print(
                f"[yellow]it learned from {taken_back} votes that were taken back since;[/] the next version that is "
                "published takes its place"
            )


@app.command("export")
def export(
    context: StudioContext,
    version: int,
    path: Path,
    file_format: Annotated[
        str, typer.Option("--format", help="diffusers, or kohya for Automatic1111, Forge, ComfyUI and InvokeAI")
    ] = "diffusers",
) -> None:
    """Copy a version to a file: for diffusers' `load_lora_weights`, or in the naming that other interfaces read."""
    with exit_on_error():
        if file_format not in ("diffusers", "kohya"):
            raise BadInputError(f"there is no adapter format {file_format!r}; there are: diffusers, kohya")
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(context.load_settings()) as lineage:
            folder = lineage.store.adapters.get(lineage.base, version).folder
        from dmpo_app.diffusion.adapter_files import export_adapter

        target = path / f"dmpo-version-{version}.safetensors" if path.is_dir() else path
        _write(target, export_adapter(folder, "kohya" if file_format == "kohya" else "diffusers"))
        out.print(str(target), highlight=False)


@app.command("push")
def push(
    context: StudioContext,
    version: int,
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="A model repository on the Hub")],
    licence: Annotated[str, typer.Option(help="Licence of the adapter, as the Hub names it, e.g. openrail")],
    private: Annotated[bool, typer.Option(help="Make a repository that is new private")] = False,
    prompts: Annotated[int, typer.Option(min=0, max=20, help="Held-out prompts rendered before and after")] = 3,
    folder: Annotated[Path | None, typer.Option(help="Keep the files here as well", show_default=False)] = None,
) -> None:
    """Publish a version with a card that says what it learned from.

    Versions are revisions, tagged v1, v2, ...; one that is there already is left alone.
    """
    with exit_on_error():
        from dmpo_app.exchange.exporting.hub_push import push_adapter, version_tag

        settings = context.load_settings()
        with tempfile.TemporaryDirectory() as temporary, progress() as bar:
            staging_folder = folder or Path(temporary)
            task = bar.add_task("images", total=prompts)
            write_repository(
                settings,
                version,
                staging_folder,
                num_prompts=prompts,
                licence=licence,
                on_image=lambda: bar.update(task, advance=1),
            )
            outcome = push_adapter(staging_folder, repository, version, private=private)
        out.print(f"version {version} is {outcome}: {repository}, revision {version_tag(version)}", highlight=False)


@app.command("merge")
def merge(
    context: StudioContext,
    version: int,
    folder: Annotated[Path, typer.Argument(help="Where the pipeline goes; made")],
    strength: Annotated[float, typer.Option(min=0, max=MAX_STRENGTH, help="How much of the adapter")] = 1.0,
) -> None:
    """Write base model and version as one pipeline, for programs that know no adapters."""
    with exit_on_error():
        merge_version(context.load_settings(), version, folder, strength=strength)
        out.print(str(folder), highlight=False)


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
    from dmpo_app.diffusion.adapter_files import MANIFEST_FILE, WEIGHTS_FILE, read_adapter
    from dmpo_app.exchange.exporting.cards import base_model_name, model_card
    from dmpo_app.labeling.quality.quality_report import build_report
    from dmpo_app.server.wiring import open_lineage, read_prompts

    with open_lineage(settings) as lineage:
        adapter = lineage.store.adapters.get(lineage.base, version)
        read_adapter(adapter.folder, adapter.sha256)
        with users_umask():
            (folder / "images").mkdir(parents=True, exist_ok=True)
        _write(folder / WEIGHTS_FILE, (adapter.folder / WEIGHTS_FILE).read_bytes())
        manifest = json.loads((adapter.folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        prompts = read_prompts(settings.pool.held_out_prompts)[:num_prompts]
        card_images = _render_before_after(lineage, settings, version, prompts, folder, on_image) if prompts else []
        card = model_card(
            lineage.base,
            adapter,
            manifest,
            build_report(lineage.store, lineage.base, settings),
            card_images,
            taken_back=lineage.store.taken_back.count(lineage.base, version),
            licence=licence,
            base_is_on_hub=base_model_name(manifest) == lineage.base.source,
            comparisons=lineage.store.effects.list(lineage.base, version),
        )
        _write(folder / "README.md", card.encode())
        return adapter


def _render_before_after(
    lineage: Lineage,
    settings: Settings,
    version: int,
    prompts: Sequence[str],
    folder: Path,
    on_image: Callable[[], None],
) -> list[CardImages]:
    from dmpo_app.exchange.exporting.cards import CardImages
    from dmpo_app.rendering.engine import Engine

    engine = Engine.load(lineage.store, lineage.base, settings)
    engine.sync_live_version()
    card_images = []
    for seed, prompt in enumerate(prompts, start=_FIRST_SEED):
        request = RenderRequest(prompt, seed, (BASE_VERSION, version), 1.0)
        names = [f"images/{seed}-base.png", f"images/{seed}-version-{version}.png"]
        for name, rendered_image in zip(names, engine.render(request, should_stop=lambda: False), strict=True):
            _write(folder / name, lineage.store.files.read_image(rendered_image.image.sha256))
        card_images.append(CardImages(prompt, seed, *names))
        on_image()
    return card_images


def _write(path: Path, content: bytes) -> None:
    with users_umask():
        path.write_bytes(content)


def merge_version(settings: Settings, version: int, target: Path, *, strength: float) -> None:
    """Write base model and version as one pipeline. Raises NotFoundError and like `merge_adapter`."""
    from dmpo_app.diffusion.adapter_files import merge_adapter
    from dmpo_app.server.wiring import open_lineage

    with open_lineage(settings) as lineage:
        adapter = lineage.store.adapters.get(lineage.base, version)
    with users_umask():
        merge_adapter(settings.base_model, adapter.folder, adapter.sha256, target, strength=strength)
