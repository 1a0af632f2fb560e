"""`dmpo consent`: the texts that people agreed to, word for word."""

from __future__ import annotations

import typer
from rich.table import Table

from dmpo_app.cli.terminal import Home, out, settings_from, spoken_errors

consent_app = typer.Typer(no_args_is_help=True, help="What people agreed to before they judged anything.")

SHOWN_DIGITS = 12


@consent_app.command("list")
def list_texts(home: Home = None) -> None:
    """The texts, oldest first: version, hash, since when, and how many agreed."""
    with spoken_errors():
        from dmpo_app.store import Store

        table = Table("version", "sha256", "first agreed to", "people", "characters", box=None)
        with Store.open(settings_from(home=home).home) as store:
            for one in store.consents.texts():
                since = f"{one.first_at:%Y-%m-%d %H:%M} UTC"
                length = "not kept" if one.text is None else str(len(one.text))
                table.add_row(one.version, one.text_sha256[:SHOWN_DIGITS], since, str(one.num_agreed), length)
        out.print(table, highlight=False)


@consent_app.command()
def show(sha256: str, home: Home = None) -> None:
    """Print the text with this hash, or beginning of a hash."""
    with spoken_errors():
        from dmpo_app.errors import BadInput, NotFound
        from dmpo_app.store import Store

        with Store.open(settings_from(home=home).home) as store:
            found = store.consents.texts_of(sha256)
        if len({one.text_sha256 for one in found}) > 1:
            raise BadInput(f"several texts begin with {sha256!r}; give more of the hash")
        text = next((one.text for one in found if one.text is not None), None)
        if text is None:
            raise NotFound(f"the text {found[0].text_sha256} was agreed to before texts were kept")
        out.print(text, markup=False, highlight=False, soft_wrap=True)
