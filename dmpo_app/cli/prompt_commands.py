"""`dmpo prompts`: importing, listing, tagging, retiring and splitting the prompts of a home."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dmpo_app.cli.terminal import StudioContext, StudioTyper, exit_on_error, out
from dmpo_app.domain.prompt import PromptImportPlan, PromptQuery, RefusedPrompt, clean_tag
from dmpo_app.errors import BadInputError, SetupError
from dmpo_app.io.files import users_umask

if TYPE_CHECKING:
    from dmpo_app.labeling.prompt_desk import PromptService
    from dmpo_app.store.prompt_catalog import PromptCatalog

prompts = StudioTyper(help="The prompts that pairs are made of, and those held out of training.")

Ids = Annotated[list[int] | None, typer.Argument(help="Numbers of prompts, as `dmpo prompts list` shows them")]
Tagged = Annotated[str | None, typer.Option("--tagged", help="All prompts with this tag", show_default=False)]
TagFilter = Annotated[str | None, typer.Option("--tag", help="Only those with this tag", show_default=False)]
Side = Annotated[bool | None, typer.Option("--held-out/--train", help="Only one side", show_default=False)]
Share = Annotated[
    float | None, typer.Option(min=0, max=1, help="Hold out this share of the new ones", show_default=False)
]
MAX_SHOWN = 20
BY = "cli"
"""The actor in the audit log."""


@prompts.command("import")
def import_prompts(
    context: StudioContext,
    file: Annotated[Path, typer.Argument(help=".txt, .csv, .tsv, .jsonl, .json or .parquet")],
    held_out_share: Share = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Hold all of them out of training")] = False,
    tag: Annotated[
        list[str] | None, typer.Option(help="Give them this tag; may be repeated", show_default=False)
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Where the prompts are; not given: prompt, prompts, caption or text")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="List at most so many refused rows")] = MAX_SHOWN,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, do nothing")] = False,
) -> None:
    """Import a file of prompts. Importing the same file again changes nothing."""
    with exit_on_error(), _desk(context) as (desk, _):
        from dmpo_app.labeling.prompt_files import parse_file

        if held_out and held_out_share is not None:
            raise BadInputError("--held-out holds all of them out and --held-out-share a part; give one of the two")
        share = 1.0 if held_out else held_out_share or 0.0
        rules = desk.rules(held_out_share=share, tags=tag or ())
        rows = list(parse_file(file, column=column, limits=desk.parser_limits))
        plan = desk.plan(rows, rules) if dry_run else desk.import_prompts(rows, rules, by=BY)
        _print_plan(plan, "would be added" if dry_run else "added", show)


@prompts.command("list")
def list_prompts(
    context: StudioContext,
    search: Annotated[str, typer.Argument(help="Beginnings of words")] = "",
    tag: TagFilter = None,
    held_out: Side = None,
    retired: Annotated[bool | None, typer.Option("--retired/--active", help="Only these", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 50,
) -> None:
    """List prompts with their tags, side, pairs and votes."""
    with exit_on_error(), _desk(context) as (desk, _):
        query = PromptQuery(tag=tag, held_out=held_out, retired=retired, limit=limit)
        page = desk.page(search=search, query=query)
        table = Table("id", "prompt", "side", "tags", "pairs", "votes", "from", box=None)
        for prompt in page.prompts:
            side = "held out" if prompt.held_out else "training"
            table.add_row(
                str(prompt.id),
                escape(prompt.text),
                side if prompt.retired_at is None else f"{side}, retired",
                " ".join(prompt.tags),
                str(prompt.num_pairs),
                str(prompt.num_votes),
                prompt.source,
            )
        out.print(table)
        out.print(f"{len(page.prompts)} of {page.total}", highlight=False)


@prompts.command("export")
def export_prompts(
    context: StudioContext,
    file: Annotated[Path, typer.Argument(help=".txt, .csv or .jsonl; it must not exist yet")],
    tag: TagFilter = None,
    held_out: Side = None,
) -> None:
    """Write prompts to a file, the oldest first."""
    with exit_on_error(), _desk(context) as (desk, _):
        from dmpo_app.labeling.prompt_files import format_prompts

        page = desk.page(search="", query=PromptQuery(tag=tag, held_out=held_out))
        text = format_prompts(page.prompts[::-1], file.suffix.lower().removeprefix("."))
        try:
            with users_umask(), file.open("x", encoding="utf-8", newline="") as stream:
                stream.write(text)
        except OSError as error:
            raise SetupError(
                f"{file} cannot be written ({error}); give the name of a file that is not there"
            ) from error
        out.print(f"{len(page.prompts)} prompts written to {file}", highlight=False)


@prompts.command()
def retire(context: StudioContext, ids: Ids = None, tagged: Tagged = None) -> None:
    """Make no more pairs of these prompts; pairs, votes and images stay."""
    with exit_on_error(), _desk(context) as (_, catalog):
        out.print(f"{catalog.retire(_select_prompt_ids(catalog, ids, tagged), by=BY)} prompts retired", highlight=False)


@prompts.command()
def restore(context: StudioContext, ids: Ids = None, tagged: Tagged = None) -> None:
    """Bring retired prompts back."""
    with exit_on_error(), _desk(context) as (_, catalog):
        out.print(
            f"{catalog.restore(_select_prompt_ids(catalog, ids, tagged), by=BY)} prompts restored", highlight=False
        )


@prompts.command()
def tag(context: StudioContext, name: str, ids: Ids = None, tagged: Tagged = None) -> None:
    """Give prompts a tag."""
    with exit_on_error(), _desk(context) as (_, catalog):
        from dmpo_app.labeling.prompt_desk import clean_tags

        prompt_ids = _select_prompt_ids(catalog, ids, tagged)
        catalog.tag(prompt_ids, clean_tags([name]), by=BY)
        out.print(f"{len(prompt_ids)} prompts tagged {clean_tags([name])[0]}", highlight=False)


@prompts.command()
def untag(context: StudioContext, name: str, ids: Ids = None, tagged: Tagged = None) -> None:
    """Take a tag away from prompts."""
    with exit_on_error(), _desk(context) as (_, catalog):
        from dmpo_app.labeling.prompt_desk import clean_tags

        prompt_ids = _select_prompt_ids(catalog, ids, tagged)
        catalog.untag(prompt_ids, clean_tags([name]), by=BY)
        out.print(f"{len(prompt_ids)} prompts without {clean_tags([name])[0]}", highlight=False)


@prompts.command()
def split(
    context: StudioContext,
    ids: Ids = None,
    tagged: Tagged = None,
    held_out: Annotated[bool | None, typer.Option("--held-out/--train", help="Where to", show_default=False)] = None,
) -> None:
    """Move prompts to one side; without any, show both sides and near duplicates across them."""
    with exit_on_error(), _desk(context) as (desk, catalog):
        if held_out is None:
            if ids or tagged:
                raise BadInputError("say where to: --held-out or --train")
            _show_split(desk, catalog)
            return
        prompt_ids = _select_prompt_ids(catalog, ids, tagged)
        refused = desk.move(prompt_ids, held_out=held_out, by=BY)
        side = "held out of training" if held_out else "training prompts"
        out.print(f"{len(set(prompt_ids)) - len(refused)} of {len(set(prompt_ids))} are {side} now", highlight=False)
        _list_refused(refused)


@contextmanager
def _desk(context: StudioContext) -> Iterator[tuple[PromptService, PromptCatalog]]:
    from dmpo_app.labeling.prompt_desk import PromptService
    from dmpo_app.labeling.quality.standing import Standings
    from dmpo_app.server.wiring import open_lineage

    settings = context.load_settings()
    with open_lineage(settings) as lineage:
        standings = Standings(lineage.store, lineage.base, settings)
        yield PromptService(lineage.store, lineage.base, settings, standings), lineage.store.prompt_catalog


def _select_prompt_ids(catalog: PromptCatalog, ids: Sequence[int] | None, tagged: str | None) -> list[int]:
    if not ids and tagged is None:
        raise BadInputError("which prompts? Give their numbers (`dmpo prompts list`), or --tagged TAG")
    prompt_ids = [*(ids or ()), *(catalog.ids_tagged(clean_tag(tagged)) if tagged is not None else ())]
    if not prompt_ids:
        raise BadInputError(f"no prompt is tagged {tagged!r}")
    return list(dict.fromkeys(prompt_ids))


def _print_plan(plan: PromptImportPlan, verb: str, show: int) -> None:
    held_out = plan.num_held_out
    sides = f"{len(plan.new_prompts) - held_out} to train on, {held_out} held out"
    out.print(f"{len(plan.new_prompts)} prompts {verb}: {sides}", highlight=False)
    if plan.stored_prompts:
        out.print(f"{len(plan.stored_prompts)} are there already", highlight=False)
    for reason, count in plan.count_refused().items():
        out.print(f"{count} refused: {reason}", highlight=False)
    _list_refused(plan.refusals, show)


def _list_refused(refused: Sequence[RefusedPrompt], show: int = MAX_SHOWN) -> None:
    for row in refused[:show]:
        like = f", like {row.similar_prompt!r}" if row.similar_prompt else ""
        out.print(escape(f"    {row.row}: {row.reason}: {row.text!r}{like}"), highlight=False, style="dim")
    if len(refused) > show:
        out.print(f"    and {len(refused) - show} more", highlight=False, style="dim")


def _show_split(desk: PromptService, catalog: PromptCatalog) -> None:
    counts, across = catalog.counts(), desk.find_across_split()
    out.print(f"{counts.num_training} to train on, {counts.num_held_out} held out", highlight=False)
    out.print(f"{len(across)} near duplicates across the two", highlight=False)
    for held_out, near in across[:MAX_SHOWN]:
        line = f"    {held_out.id} {held_out.text!r} (held out) and {near.id} {near.text!r}"
        out.print(escape(line), highlight=False, style="dim")
