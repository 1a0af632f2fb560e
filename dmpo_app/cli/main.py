"""The `dmpo` command. Each command builds what it needs and calls one thing; heavy imports happen inside."""

import logging
import random
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from dmpo_app import __version__
from dmpo_app.cli.adapter_commands import app as adapters
from dmpo_app.cli.backup_commands import backup, restore, verify
from dmpo_app.cli.campaign_commands import annotators_app, consent_app, gold_app, invite_app, quality, reports_app
from dmpo_app.cli.exchange_commands import export as export_votes
from dmpo_app.cli.exchange_commands import import_data
from dmpo_app.cli.judge_command import judge
from dmpo_app.cli.judging_commands import board, verdicts
from dmpo_app.cli.prompt_commands import prompts
from dmpo_app.cli.space_commands import app as space
from dmpo_app.cli.study_commands import study_app
from dmpo_app.cli.terminal import StudioContext, StudioTyper, console, exit_on_error, log_to_terminal, out, progress
from dmpo_app.cli.train_command import train
from dmpo_app.domain.limits import MAX_STRENGTH
from dmpo_app.errors import BadInputError, StudioError
from dmpo_app.server.start_errors import start_errors_explained

app = StudioTyper(help="DMPO Studio: a model that learns a taste.")


def _print_version(asked: bool) -> None:
    if asked:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """DMPO Studio: a model that learns a taste."""


def serve(
    context: StudioContext,
    host: Annotated[str | None, typer.Option(help="Address to listen on [DMPO_HOST]", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [DMPO_PORT]", show_default=False)] = None,
    train: Annotated[bool | None, typer.Option(help="Run a trainer beside the server", show_default=False)] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more, and errors with their traceback")] = False,
) -> None:
    """Start the studio: page, API, live model and trainer."""
    log_to_terminal(logging.DEBUG if verbose else logging.INFO)
    with exit_on_error():
        with start_errors_explained():
            from dmpo_app.server.run import run_server

            settings = context.load_settings(host=host, port=port, train=train)
        run_server(settings, console)


def render(
    context: StudioContext,
    prompt: str,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    versions: Annotated[str, typer.Option(help="Comma-separated version numbers, or 'live'")] = "0,live",
    strength: Annotated[float, typer.Option(min=0, max=MAX_STRENGTH)] = 1.0,
    count: Annotated[int, typer.Option(min=1, help="How many seeds, from SEED on")] = 1,
    output: Annotated[Path, typer.Option(help="Folder for the images")] = Path(),
) -> None:
    """Render a prompt under some versions and write PNG files."""
    log_to_terminal(logging.WARNING)
    with exit_on_error():
        from dmpo_app.cli.offline import render_to_files

        settings = context.load_settings()
        with progress() as bar:
            task = bar.add_task("rendering", total=count)
            for path in render_to_files(settings, prompt, range(seed, seed + count), versions, strength, output):
                out.print(str(path), highlight=False)
                bar.update(task, advance=0 if path is None else 1 / (versions.count(",") + 1))


def status(context: StudioContext) -> None:
    """Show votes, pool, round and versions of a home."""
    with exit_on_error():
        from dmpo_app.server.wiring import build_labeling, open_lineage

        settings = context.load_settings()
        with open_lineage(settings) as lineage:
            now = build_labeling(settings, lineage).status()
            candidate = lineage.store.adapters.candidate(lineage.base)
        table = Table(show_header=False, box=None)
        table.add_row("home", str(settings.home))
        table.add_row("base model", f"{lineage.base.source} ({lineage.base.family})")
        table.add_row("votes", f"{now.votes}, {now.votes_until_round} until the next round")
        table.add_row("pool", f"{now.pool} pairs without a vote")
        table.add_row("live version", str(now.live_version))
        if candidate is not None:
            table.add_row("held back", f"version {candidate}, being judged")
        if now.round is not None:
            table.add_row("round", f"{now.round.id} {now.round.status}, step {now.round.step} of {now.round.steps}")
        if now.last_round is not None:
            table.add_row("last round", f"{now.last_round.id} {now.last_round.status} {now.last_round.reason or ''}")
        if now.last_error:
            table.add_row("last error", now.last_error)
        out.print(table)


def health(
    context: StudioContext,
    url: Annotated[
        str | None, typer.Option(help="Its address; not given: from the settings", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Patience")] = 5.0,
) -> None:
    """Ask the studio on this machine if it is alive; exit with 0 if it is, else with 1."""
    with exit_on_error():
        from dmpo_app.cli.health import check_health, is_on_this_machine, studio_url

        address = f"{url.rstrip('/')}/" if url else studio_url(context.load_settings())
        by_proxy = url is not None and not is_on_this_machine(url)
        out.print(check_health(address, seconds=seconds, by_proxy=by_proxy), highlight=False, soft_wrap=True)


def simulate(
    context: StudioContext,
    taste: Annotated[str, typer.Argument(help="A named taste; `dmpo simulate list` names them")],
    votes: Annotated[int, typer.Option(min=1)] = 32,
    wrong: Annotated[
        float, typer.Option(min=0, max=1, help="Share of votes cast the other way, rankings worst first")
    ] = 0.0,
    seed: int = 0,
    url: Annotated[
        str | None, typer.Option(help="Where the studio listens; not given: from the settings", show_default=False)
    ] = None,
) -> None:
    """Vote by a taste computed from pixels, through the JSON API of a running studio."""
    with exit_on_error():
        import httpx

        from dmpo_app.cli.health import is_on_this_machine, studio_url
        from dmpo_app.cli.simulation import SimulatedAnnotator
        from dmpo_app.labeling.tastes import TASTES

        if taste == "list":
            for name, known in TASTES.items():
                out.print(f"[bold]{name}[/]  {known.description}")
            return
        if taste not in TASTES:
            raise BadInputError(f"no taste is named {taste!r}; there are: {', '.join(TASTES)}")
        address = url or studio_url(context.load_settings())
        by_proxy = url is not None and not is_on_this_machine(url)
        try:
            with httpx.Client(base_url=address, timeout=30, trust_env=by_proxy) as client, progress() as bar:
                rng = random.Random(seed)
                annotator = SimulatedAnnotator(
                    client, TASTES[taste], wrong_share=wrong, rng=rng, handle=f"likes {taste}"
                )
                task = bar.add_task(f"voting for {taste}", total=votes)
                votes_left = 0
                for vote in annotator.votes(votes):
                    votes_left = vote.votes_until_round
                    bar.update(task, advance=1)
            out.print(f"{votes} votes cast; {votes_left} until the next round")
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise StudioError(f"no studio answers at {address} ({error}); start one with `dmpo serve`") from error


def scorers() -> None:
    """List the automatic scorers of images: what each prefers, the source of its weights, its licence."""
    from dmpo_app.scoring.registry import SCORERS

    table = Table("scorer", "prefers", "weights", "licence", box=None)
    for info in SCORERS.values():
        table.add_row(f"[bold]{info.name}[/]", info.description, info.weights_from, info.licence)
    out.print(table, highlight=False)


def settings(
    context: StudioContext,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only those that differ from their defaults, and where they come from")
    ] = False,
) -> None:
    """List every setting: its environment variable, its value now, its meaning."""
    with exit_on_error():
        from dmpo_app.settings import find_changes

        loaded = context.load_settings()
        if changed:
            changes = find_changes(loaded, context.shared_settings, context.shared_options.config)
            table = Table(Column("variable", no_wrap=True), "value", "default", Column("from", no_wrap=True), box=None)
            for change in changes:
                table.add_row(*map(escape, change))
            if not changes:
                out.print("Every setting has its default.")
                return
        else:
            table = Table("variable", "value", "meaning", box=None)
            for field in loaded.fields():
                table.add_row(field.variable, escape(str(field.value)), escape(field.meaning))
        out.print(table)


def objectives() -> None:
    """List the preference objectives a round can minimise: name, formula, options, source."""
    from dmpo_app.objective import OBJECTIVES, load_installed

    with exit_on_error():
        load_installed()
    out.print("DMPO_ROUND__OBJECTIVE=\n")
    for objective in OBJECTIVES.values():
        options = ", ".join(f"{name}={value:g}" for name, value in objective.options.items())
        out.print(f"[bold]{objective.name}[/]  {objective.title}. {objective.source}", highlight=False)
        out.print(f"    {objective.formula}", markup=False, highlight=False)
        facts = [f"targets: {'soft' if objective.soft else 'the side alone'}", f"of the reference: {objective.needs}"]
        out.print(f"    {'; '.join(facts + [f'options: {options}'] * bool(options))}", highlight=False, style="dim")
    out.print(
        "\nPer pair. e, r: mean squared errors of policy and reference; u = 0.5 beta ((r_a - e_a) - (r_b - e_b)), u_w "
        "towards the chosen image; p = sigmoid(u); q: the target. The winner-preserving guard "
        "(DMPO_ROUND__WINNER_GUARD) goes with any of them.",
        highlight=False,
    )


def doctor(context: StudioContext) -> None:
    """Check device, models, SQLite, disk and ports, and say what would fail."""
    with exit_on_error():
        from dmpo_app.cli.doctor import CheckStatus, examine

        colours = {CheckStatus.OK: "green", CheckStatus.WARNING: "yellow", CheckStatus.PROBLEM: "red"}
        problems = 0
        for check in examine(context.load_settings()):
            colour = colours[check.status]
            out.print(f"[{colour}]{check.status:<8}[/] [bold]{check.subject:<11}[/]", check.detail, highlight=False)
            if check.advice:
                out.print(f"{'':<21}{check.advice}", highlight=False, style="dim")
            problems += check.status is CheckStatus.PROBLEM
    raise typer.Exit(1 if problems else 0)


def starter_pairs(context: StudioContext, count: int = 64, seed: int = 1) -> None:
    """Render the pairs that ship with the base model (for maintainers, after `make pocket`)."""
    log_to_terminal(logging.INFO)
    with exit_on_error():
        from dmpo_app.cli.offline import make_starter_pairs

        with progress() as bar:
            task = bar.add_task("rendering pairs", total=count)
            for _ in make_starter_pairs(context.load_settings(), count, seed):
                bar.update(task, advance=1)


RUN, TRAIN, DATA, CAMPAIGN, MODELS, MAINTENANCE = "Run", "Train", "Data", "Campaign", "Models", "Maintenance"

app.command(rich_help_panel=RUN)(serve)
app.command(rich_help_panel=RUN)(status)
app.command(rich_help_panel=RUN)(health)
app.command(rich_help_panel=RUN)(simulate)
app.add_typer(space, name="space", rich_help_panel=RUN)

app.command(rich_help_panel=TRAIN)(train)
app.command(rich_help_panel=TRAIN)(objectives)
app.command(rich_help_panel=TRAIN)(scorers)

app.command("import", rich_help_panel=DATA)(import_data)
app.command("export", rich_help_panel=DATA)(export_votes)
app.add_typer(prompts, name="prompts", rich_help_panel=DATA)

app.command(rich_help_panel=CAMPAIGN)(quality)
app.add_typer(annotators_app, name="annotators", rich_help_panel=CAMPAIGN)
app.add_typer(reports_app, name="reports", rich_help_panel=CAMPAIGN)
app.add_typer(study_app, name="study", rich_help_panel=CAMPAIGN)
app.add_typer(gold_app, name="gold", rich_help_panel=CAMPAIGN)
app.add_typer(invite_app, name="invite", rich_help_panel=CAMPAIGN)
app.add_typer(consent_app, name="consent", rich_help_panel=CAMPAIGN)

app.command(rich_help_panel=MODELS)(render)
app.command(rich_help_panel=MODELS)(judge)
app.add_typer(adapters, name="adapters", rich_help_panel=MODELS)
app.command(rich_help_panel=MODELS)(board)
app.command(rich_help_panel=MODELS)(verdicts)

app.command(rich_help_panel=MAINTENANCE)(settings)
app.command(rich_help_panel=MAINTENANCE)(doctor)
app.command(rich_help_panel=MAINTENANCE)(backup)
app.command(rich_help_panel=MAINTENANCE)(restore)
app.command(rich_help_panel=MAINTENANCE)(verify)
app.command("starter-pairs", hidden=True)(starter_pairs)
