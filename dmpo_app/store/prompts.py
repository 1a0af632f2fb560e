"""Prompts that pairs are made of, and prompts kept out of training for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select

from dmpo_app.domain import Prompt
from dmpo_app.errors import Conflict
from dmpo_app.store.database import Database
from dmpo_app.store.schema import PromptRow

_CHUNK = 500
"""Texts in one IN (...): databases bound the number of parameters."""


class Prompts:
    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def ensure(self, texts: Sequence[str], *, held_out: bool) -> list[Prompt]:
        """The prompts of these texts, in their order, added where new.

        Raises Conflict when one is on the other side already: a yardstick that was trained on measures nothing.
        """
        return self._database.write(
            lambda connection: ensure_prompts(connection, texts, held_out=held_out, at=self._now())
        )

    def list(self, held_out: bool | None = None) -> list[Prompt]:
        """All prompts in the order they were added, or one side of them."""
        query = select(PromptRow.id, PromptRow.text, PromptRow.held_out).order_by(PromptRow.id)
        if held_out is not None:
            query = query.where(PromptRow.held_out == held_out)
        with self._database.reader() as connection:
            return [Prompt(*row) for row in connection.execute(query)]


def ensure_prompts(connection: Connection, texts: Sequence[str], *, held_out: bool, at: datetime) -> list[Prompt]:
    """`Prompts.ensure` as a part of a transaction."""
    wanted = list(dict.fromkeys(texts))
    known = _find(connection, wanted)
    for prompt in known.values():
        if prompt.held_out != held_out:
            side = "is held out of training" if prompt.held_out else "has been trained on in this home"
            raise Conflict(f"the prompt {prompt.text!r} {side}; it cannot be both. Take it out of one of the lists")
    new = [text for text in wanted if text not in known]
    if new:
        connection.execute(insert(PromptRow), [{"text": text, "held_out": held_out, "created_at": at} for text in new])
        known |= _find(connection, new)
    return [known[text] for text in texts]


def _find(connection: Connection, texts: Sequence[str]) -> dict[str, Prompt]:
    found: dict[str, Prompt] = {}
    for start in range(0, len(texts), _CHUNK):
        query = select(PromptRow.id, PromptRow.text, PromptRow.held_out).where(
            PromptRow.text.in_(texts[start : start + _CHUNK])
        )
        found |= {row.text: Prompt(*row) for row in connection.execute(query)}
    return found
