"""The people of a campaign and their votes: `dmpo invite`, `consent`, `quality`, `annotators`, `reports` and `gold`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dmpo_app.cli.terminal import StudioContext, StudioTyper, console, exit_on_error, out
from dmpo_app.io.files import users_umask

if TYPE_CHECKING:
    from dmpo_app.labeling.moderation import Moderation
    from dmpo_app.labeling.quality import QualityReport
    from dmpo_app.labeling.quality.quality_votes import Share


invite_app = StudioTyper(help="Links of invitation, for DMPO_LABELING__ACCESS=invite.")


@invite_app.command()
def create(
    context: StudioContext,
    uses: Annotated[int, typer.Option(min=1, help="Sessions that a link opens at most")] = 1,
    days: Annotated[float, typer.Option(min=0.01, help="Days until it expires")] = 14.0,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many links")] = 1,
    name: Annotated[str, typer.Option(help="Whom they are for, as a note to yourself")] = "",
    url: Annotated[str | None, typer.Option(help="Where people reach the studio", show_default=False)] = None,
) -> None:
    """Make links of invitation and print them, one a line. Whoever has a link can use it: hand it out with care."""
    with exit_on_error():
        from dmpo_app.backup.startup import open_store
        from dmpo_app.cli.health import studio_url
        from dmpo_app.labeling import Sealer, load_or_create_key
        from dmpo_app.labeling.text_checks import clean_handle

        settings = context.load_settings()
        label = clean_handle(name) if name else ""
        names = [label] if count == 1 else [f"{label} {number}".strip() for number in range(1, count + 1)]
        with open_store(settings) as store:
            invites = store.invites.create(names, max_uses=uses, lifetime=timedelta(days=days), by="cli")
        sealer = Sealer(load_or_create_key(settings.home))
        address = (url or settings.identity.public_url or studio_url(settings)).rstrip("/")
        for invite in invites:
            out.print(f"{address}/?invite={sealer.seal_invite(invite.public_id)}", highlight=False, soft_wrap=True)
        if settings.access != "invite":
            console.print("Sessions are open to everybody now; DMPO_LABELING__ACCESS=invite makes these links needed.")


@invite_app.command("list")
def list_invites(context: StudioContext) -> None:
    """List the links, oldest first: number of uses, and expiry."""
    with exit_on_error():
        from dmpo_app.backup.startup import open_store

        table = Table("name", "used", "of", "until", box=None)
        settings = context.load_settings()
        with open_store(settings) as store:
            for invite in store.invites.list():
                until = f"{invite.expires_at:%Y-%m-%d %H:%M} UTC"
                table.add_row(Text(invite.name), str(invite.num_uses), str(invite.max_uses), until)
        out.print(table)


consent_app = StudioTyper(help="Texts that people agreed to before their first vote.")

SHOWN_DIGITS = 12


@consent_app.command("list")
def list_texts(context: StudioContext) -> None:
    """List the texts, oldest first: version, hash, date of the first agreement, number of people."""
    with exit_on_error():
        from dmpo_app.backup.startup import open_store

        table = Table("version", "sha256", "first agreed to", "people", "characters", box=None)
        with open_store(context.load_settings()) as store:
            for one in store.consents.texts():
                since = f"{one.first_at:%Y-%m-%d %H:%M} UTC"
                length = "not kept" if one.text is None else str(len(one.text))
                table.add_row(one.version, one.text_sha256[:SHOWN_DIGITS], since, str(one.num_agreed), length)
        out.print(table, highlight=False)


@consent_app.command()
def show(context: StudioContext, sha256: str) -> None:
    """Print the text with this hash, or beginning of a hash."""
    with exit_on_error():
        from dmpo_app.backup.startup import open_store
        from dmpo_app.errors import BadInputError, NotFoundError

        with open_store(context.load_settings()) as store:
            texts = store.consents.find_texts(sha256)
        if len({one.text_sha256 for one in texts}) > 1:
            raise BadInputError(f"several texts begin with {sha256!r}; give more of the hash")
        text = next((one.text for one in texts if one.text is not None), None)
        if text is None:
            raise NotFoundError(f"the text {texts[0].text_sha256} was agreed to before texts were kept")
        out.print(text, markup=False, highlight=False, soft_wrap=True)


MOST_ROWS = 40


def quality(
    context: StudioContext,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the whole report to this file", show_default=False)
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write a line an annotator to this file", show_default=False)
    ] = None,
) -> None:
    """Report the quality of votes: agreement, repeats, sides, times, and the weight of each annotator's votes."""
    with exit_on_error():
        from dmpo_app.labeling.quality.quality_report import build_report, to_csv, to_json
        from dmpo_app.server.wiring import open_lineage

        settings = context.load_settings()
        with open_lineage(settings) as lineage:
            report = build_report(lineage.store, lineage.base, settings)
        for path, text in ((json_file, to_json), (csv_file, to_csv)):
            if path is not None:
                with users_umask():
                    path.write_text(text(report), encoding="utf-8", newline="")
                out.print(str(path), highlight=False)
        if json_file is None and csv_file is None:
            _show(report)


def _show(report: QualityReport) -> None:
    alpha = report.alpha
    facts = Table(show_header=False, box=None)
    facts.add_row("votes", f"{report.votes} on {report.pairs} pairs, {report.overlapping_pairs} voted on by several")
    facts.add_row(
        "agreement (Krippendorff's alpha)",
        "nothing to compare" if alpha is None else f"{alpha.value:.2f} ({alpha.low:.2f} to {alpha.high:.2f})",
    )
    for name, share in (
        ("with what most others said", report.agreement),
        ("repeats with the same vote", report.repeats),
        ("gold pairs with the right vote", report.gold),
        ("image on the left", report.left),
        ("ties", report.ties),
        ("faster than 0.6 s", report.fast),
    ):
        facts.add_row(name, _format_share(share))
    if report.newcomer_share is not None:
        established = sum(row.established for row in report.annotators)
        facts.add_row("established", f"{established} of {len(report.annotators)} who voted")
    facts.add_row("reliability", "weighs votes" if report.weights_in_use else "off: every vote counts alike")
    out.print(facts, highlight=False)
    for note in report.notes:
        console.print(note, highlight=False)
    if not report.annotators:
        return
    table = Table("annotator", "votes", "agrees", "repeats", "left", "median", "weight", "counts", "", box=None)
    for row in report.annotators[:MOST_ROWS]:
        median = "" if row.median_ms is None else f"{row.median_ms / 1000:.1f} s"
        shares = [_format_share(share, short=True) for share in (row.agreement, row.repeats, row.left)]
        cells = (row.name, str(row.votes), *shares, median, f"{row.weight:.2f}", f"{row.counts:.2f}")
        table.add_row(*cells, ", ".join(row.flags))
    out.print(table, highlight=False)
    if len(report.annotators) > MOST_ROWS:
        out.print(f"and {len(report.annotators) - MOST_ROWS} more; --csv FILE writes them all", highlight=False)


def _format_share(share: Share, *, short: bool = False) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "" if short else "none"
    if short:
        return f"{share.value:.0%}"
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%}) of {share.trials}"


annotators_app = StudioTyper(help="Annotators whose votes, reports and prompts shall not count.")
reports_app = StudioTyper(help="Reports of pairs that should not be shown.")
AnnotatorName = Annotated[str, typer.Argument(help="As `dmpo quality` or a report has it")]


@contextmanager
def _open_moderation(context: StudioContext) -> Iterator[Moderation]:
    from dmpo_app.labeling.moderation import Moderation
    from dmpo_app.labeling.quality.standing import Standings
    from dmpo_app.server.wiring import open_lineage

    settings = context.load_settings()
    with open_lineage(settings) as lineage:
        yield Moderation(lineage.store, lineage.base, Standings(lineage.store, lineage.base, settings))


@annotators_app.command()
def strike(context: StudioContext, name: AnnotatorName) -> None:
    """Strike an annotator: nothing of theirs counts until they are restored, and nothing is deleted."""
    with exit_on_error(), _open_moderation(context) as moderation:
        struck = moderation.strike(name, by="cli")
        counts = f"{struck.votes} votes, {struck.reports} open reports, {struck.prompts} prompts"
        out.print(f"struck: {counts}; `dmpo annotators restore {name}` takes it back", highlight=False)


@annotators_app.command()
def restore(context: StudioContext, name: AnnotatorName) -> None:
    """Undo a strike: everything counts again as if it had not been."""
    with exit_on_error(), _open_moderation(context) as moderation:
        moderation.restore(name, by="cli")


@annotators_app.command("struck")
def list_struck(context: StudioContext) -> None:
    """List the struck annotators, the last one first."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        table = Table("annotator", "since", "votes", "reports", "prompts", box=None)
        with open_lineage(context.load_settings()) as lineage:
            for one in lineage.store.strikes.list():
                since = f"{one.struck_at:%Y-%m-%d %H:%M} UTC"
                table.add_row(one.public_id, since, str(one.votes), str(one.reports), str(one.prompts))
        out.print(table, highlight=False)


@reports_app.command("list")
def list_reports(context: StudioContext) -> None:
    """List the open reports, newest first."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        table = Table("report", "pair", "reason", "text", "by", "pair is", box=None)
        with open_lineage(context.load_settings()) as lineage:
            for one in lineage.store.reports.list(lineage.base, only_open=True):
                state = "retired" if one.retired_at else "hidden" if one.hidden_at else "shown"
                cells = (one.reason.value, Text(one.text or ""), one.annotator, state)
                table.add_row(str(one.id), str(one.pair_id), *cells)
        out.print(table, highlight=False)


@reports_app.command("clear")
def clear_reports(
    context: StudioContext,
    annotator: Annotated[str | None, typer.Option(help="Those of this annotator alone", show_default=False)] = None,
) -> None:
    """Clear all open reports at once, but for those that an administrator has confirmed."""
    with exit_on_error(), _open_moderation(context) as moderation:
        out.print(f"{moderation.clear_reports(by='cli', annotator=annotator)} reports cleared", highlight=False)


gold_app = StudioTyper(help="Pairs whose right answer is known, for DMPO_LABELING__GOLD_RATE.")
PairId = Annotated[int, typer.Argument(min=1, help="The pair's number, as reports and the API have it")]


class GoldOutcome(StrEnum):
    """The right answer of a gold pair."""

    A = "a"
    B = "b"
    TIE = "tie"


@gold_app.command()
def add(
    context: StudioContext,
    pair: PairId,
    answer: Annotated[GoldOutcome, typer.Argument(help="The better image: a is the one that was made first")],
) -> None:
    """Make a pair a gold pair. It is mixed in from now on, and votes on it are not trained on."""
    with exit_on_error():
        from dmpo_app.domain.vote import Outcome
        from dmpo_app.server.wiring import open_lineage

        settings = context.load_settings()
        with open_lineage(settings) as lineage:
            lineage.store.gold.set(lineage.base, pair, Outcome(answer.value), by="cli")
        if settings.labeling.gold_rate == 0:
            console.print(
                "Gold pairs are not shown yet; DMPO_LABELING__GOLD_RATE=0.05 makes them 5 % of all assignments."
            )


@gold_app.command()
def remove(context: StudioContext, pair: PairId) -> None:
    """Make a gold pair a pair like any other."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        with open_lineage(context.load_settings()) as lineage:
            lineage.store.gold.set(lineage.base, pair, None, by="cli")


@gold_app.command("list")
def list_gold(context: StudioContext) -> None:
    """List the gold pairs with their right answers."""
    with exit_on_error():
        from dmpo_app.server.wiring import open_lineage

        table = Table("pair", "right answer", "prompt", box=None)
        with open_lineage(context.load_settings()) as lineage:
            for pair_id, answer in lineage.store.gold.right_outcomes(lineage.base).items():
                table.add_row(str(pair_id), answer.value, lineage.store.pairs.get(pair_id).prompt)
        out.print(table)
