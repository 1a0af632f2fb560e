"""`dmpo judge`: the win rate of one version over another under scorers, over a file of prompts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from dmpo_app.cli.terminal import StudioContext, exit_on_error, log_to_terminal, out, progress
from dmpo_app.cli.train_command import EXIT_STOPPED, nested_settings
from dmpo_app.errors import BadInputError
from dmpo_app.io.files import users_umask
from dmpo_app.io.processes import stop_signals

if TYPE_CHECKING:
    from dmpo_app.judging.win_rates import Estimate
    from dmpo_app.rendering.judged_versions import JudgedVersion
    from dmpo_app.rendering.judging_plan import JudgingPlan
    from dmpo_app.rendering.judging_report import JudgingResult
    from dmpo_app.settings import ScorerSettings, Settings

_VERSION_HELP = "Number of a version, live, base, folder of an adapter or of a training's output, or a LoRA file"


def _sampling(description: str, **checks: Any) -> Any:
    """An option of how images are made."""
    return typer.Option(help=description, rich_help_panel="Sampling", show_default=False, **checks)


New = Annotated[str, typer.Argument(help=f"The version that is judged. {_VERSION_HELP}")]
Old = Annotated[str, typer.Argument(help="The one that it is compared with, named in the same ways")]
Output = Annotated[Path, typer.Option(help="Folder for images, scores and results; the same command goes on in it")]
Scorers = Annotated[
    list[str] | None,
    typer.Option("--scorer", metavar="NAME[=SOURCE]", help="See `dmpo scorers`; may be repeated", show_default=False),
]
Prompts = Annotated[
    Path | None,
    typer.Option(help=".txt, .csv, .tsv, .jsonl, .json or .parquet; not given: the held-out prompts of the settings"),
]
PromptColumn = Annotated[
    str | None, typer.Option("--column", help="Where the prompts are; not given: prompt, prompts, caption or text")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first so many prompts")]
SheetRows = Annotated[int, typer.Option(min=1, max=50, help="Wins, and losses, on a contact sheet")]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="Seeds for each prompt", rich_help_panel="Sampling")]
Seed = Annotated[int, typer.Option(min=0, help="Other seeds for all prompts", rich_help_panel="Sampling")]
Steps = Annotated[int | None, _sampling("Denoising steps [DMPO_RENDER__NUM_STEPS]")]
Guidance = Annotated[float | None, _sampling("Guidance scale [DMPO_RENDER__GUIDANCE]")]
Resolution = Annotated[int | None, _sampling("Pixels a side [DMPO_RENDER__RESOLUTION]")]
Batch = Annotated[int, typer.Option(min=1, max=1024, help="Images at a time", rich_help_panel="Sampling")]


def judge(
    context: StudioContext,
    new: New,
    old: Old = "base",
    *,
    output: Output,
    scorers: Scorers = None,
    prompts: Prompts = None,
    column: PromptColumn = None,
    limit: Limit = None,
    sheet_rows: SheetRows = 8,
    seeds: Seeds = 1,
    seed: Seed = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    resolution: Resolution = None,
    batch: Batch = 8,
) -> None:
    """Count how often scorers prefer one version over another: same prompts, same seeds.

    Stopped or killed, the same command goes on where it was. Other scorers may be asked of the same images later.
    """
    log_to_terminal(logging.WARNING)
    sampling = {"render.num_steps": steps, "render.guidance": guidance, "render.resolution": resolution}
    with exit_on_error():
        settings = context.load_settings(nested=nested_settings([], sampling))
        choices = parse_scorers(scorers or [])
        from dmpo_app.judging.prompt_list import read_prompt_list

        prompt_list = read_prompt_list(
            prompts or settings.pool.held_out_prompts, column=column, limit=limit, limits=settings.parsing.limits
        )
        for reason, count in sorted(prompt_list.left_out.items()):
            out.print(f"rows left out: {count}, {reason}", highlight=False)
        versions = _find_versions((new, old), settings)
        from dmpo_app.rendering.judging_plan import JudgingPlan

        plan = JudgingPlan(
            *versions,
            prompt_list,
            choices,
            seeds_per_prompt=seeds,
            seed=seed,
            batch_size=batch,
            sheet_rows=sheet_rows,
        )
        with users_umask():
            result = _run(plan, settings, output.expanduser().resolve())
    if result is None:
        out.print("stopped; what was done is kept: run the same command again to go on")
        raise typer.Exit(EXIT_STOPPED)
    _print_result(plan, result, output)


def parse_scorers(texts: Sequence[str]) -> tuple[ScorerSettings, ...]:
    """Parse `pickscore` and `hpsv2=FILE`. Raises BadInputError for no scorer, an unknown one, or one twice."""
    from dmpo_app.scoring.registry import SCORERS
    from dmpo_app.settings import ScorerSettings

    there = ", ".join(SCORERS)
    if not texts:
        raise BadInputError(f"no scorer is named; give one or more --scorer, of: {there}")
    choices: dict[str, ScorerSettings] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if name not in SCORERS:
            raise BadInputError(f"there is no scorer named {name!r}; there are: {there}")
        if name in choices:
            raise BadInputError(f"--scorer {name} is given twice; a scorer is asked once, with one source")
        if equals and not source:
            raise BadInputError(f"--scorer {text} names no source; expected {name}=FILE, or {name} alone")
        choices[name] = ScorerSettings(name=name, source=source or None)
    return tuple(choices.values())


def _find_versions(names: tuple[str, str], settings: Settings) -> tuple[JudgedVersion, JudgedVersion]:
    """The two versions; a home is opened only where one of them is in it."""
    from dmpo_app.diffusion.base_models import detect_family

    detect_family(settings.base_model)  # a base model that is unfit is told before the slow imports
    from dmpo_app.rendering.judged_versions import find_file_version, find_home_version, is_of_home

    found = {name: find_file_version(name) for name in names if not is_of_home(name)}
    if len(found) < len(set(names)):
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(settings) as lineage:
            found |= {name: find_home_version(name, lineage.store, lineage.base) for name in names if is_of_home(name)}
    return found[names[0]], found[names[1]]


def _run(plan: JudgingPlan, settings: Settings, folder: Path) -> JudgingResult | None:
    from dmpo_app.rendering.judging_run import JudgingRun

    with stop_signals() as stopping, progress() as bar:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(escape(stage), total=total)
            bar.update(tasks[stage], completed=done)

        return JudgingRun(plan, settings, folder, on_progress=show, should_stop=stopping.is_set).run()


def _print_result(plan: JudgingPlan, result: JudgingResult, folder: Path) -> None:
    new, old = plan.new.label, plan.old.label
    seeds = "one seed" if plan.seeds_per_prompt == 1 else f"{plan.seeds_per_prompt} seeds"
    out.print(f"{new} against {old}: {len(plan.prompts.prompts)} prompts, {seeds} each", markup=False, highlight=False)
    if result.withheld:
        out.print(f"{result.withheld} pairs left out: the safety checker flagged an image", highlight=False)
    columns = ("scorer", "win rate", "w/t/l", "mean difference")
    table = Table(*(Column(name, no_wrap=True) for name in columns), box=None, pad_edge=False)
    for name, verdict in result.verdicts.items():
        counts = f"{verdict.wins}/{verdict.ties}/{verdict.losses}"
        table.add_row(name, _percent(verdict.win_rate), counts, _with_interval(verdict.difference))
    out.print(table, highlight=False)
    out.print(
        "win rate: (wins + 0.5 ties) / pairs; in brackets 95 %, clustered by prompt", style="dim", highlight=False
    )
    out.print(f"rows, summary and contact sheets: {folder}", markup=False, highlight=False, soft_wrap=True)


def _percent(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1%}"
    return f"{estimate.value:.1%} ({100 * estimate.low:.1f}..{100 * estimate.high:.1f})"


def _with_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3g}"
    return f"{estimate.value:+.3g} ({estimate.low:+.2g}..{estimate.high:+.2g})"
