"""`dmpo invite` and `dmpo consent`: links of invitation, and the texts that people agreed to."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from dmpo_app.cli.shared_options import StudioContext, StudioTyper
from dmpo_app.cli.terminal import console, exit_on_error, out

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
        from dmpo_app.labeling import Sealer, load_or_create_key
        from dmpo_app.labeling.text_checks import clean_handle

        settings = context.load_settings()
        label = clean_handle(name) if name else ""
        names = [label] if count == 1 else [f"{label} {number}".strip() for number in range(1, count + 1)]
        with open_store(settings) as store:
            invites = store.invites.create(names, max_uses=uses, lifetime=timedelta(days=days), by="cli")
        sealer = Sealer(load_or_create_key(settings.home))
        address = (url or f"http://{settings.host}:{settings.port}").rstrip("/")
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
        from dmpo_app.store import Store

        table = Table("version", "sha256", "first agreed to", "people", "characters", box=None)
        with Store.open(context.load_settings().home) as store:
            for one in store.consents.texts():
                since = f"{one.first_at:%Y-%m-%d %H:%M} UTC"
                length = "not kept" if one.text is None else str(len(one.text))
                table.add_row(one.version, one.text_sha256[:SHOWN_DIGITS], since, str(one.num_agreed), length)
        out.print(table, highlight=False)


@consent_app.command()
def show(context: StudioContext, sha256: str) -> None:
    """Print the text with this hash, or beginning of a hash."""
    with exit_on_error():
        from dmpo_app.errors import BadInputError, NotFoundError
        from dmpo_app.store import Store

        with Store.open(context.load_settings().home) as store:
            texts = store.consents.find_texts(sha256)
        if len({one.text_sha256 for one in texts}) > 1:
            raise BadInputError(f"several texts begin with {sha256!r}; give more of the hash")
        text = next((one.text for one in texts if one.text is not None), None)
        if text is None:
            raise NotFoundError(f"the text {texts[0].text_sha256} was agreed to before texts were kept")
        out.print(text, markup=False, highlight=False, soft_wrap=True)
