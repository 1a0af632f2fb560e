"""Prompts that pairs are made of, and prompts kept out of training for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, exists, func, insert, select, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.image import Prompt
from dmpo_app.domain.prompt import KnownPrompt, NewPrompt, PromptSnapshot, PromptSource, PromptsState, fold
from dmpo_app.errors import Conflict, TooMany
from dmpo_app.store.audit import in_ranges, record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import BaseModelRow, PairRow, PromptProposalRow, PromptRow, PromptTagRow

_CHUNK = 500
"""Texts in one IN (...): databases bound the number of parameters."""

_DAY = timedelta(days=1)


class Prompts:
    """Which prompts there are and on which side each is.

    New prompts are compared with a `snapshot` first, which may take a while; the methods that then write are given the
    snapshot's state, and do nothing and answer None when it is no longer the state of things.
    """

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def ensure(self, texts: Sequence[str], *, held_out: bool) -> list[Prompt]:
        """The prompts of these texts, in their order, added where new. Those that were moved by hand are left there.

        Raises Conflict when one, or a twin of it, is on the other side already: a yardstick that was trained on
        measures nothing.
        """
        return self._database.write(
            lambda connection: ensure_prompts(connection, texts, held_out=held_out, at=self._now(), moved_may_stay=True)
        )

    def list(self, held_out: bool | None = None) -> list[Prompt]:
        """All prompts in the order they were added, or one side of them."""
        query = select(PromptRow.id, PromptRow.text, PromptRow.held_out).order_by(PromptRow.id)
        if held_out is not None:
            query = query.where(PromptRow.held_out == held_out)
        with self._database.reader() as connection:
            return [Prompt(*row) for row in connection.execute(query)]

    def for_pairs(self, tags: Sequence[str] = ()) -> Sequence[str]:
        """The training prompts that new pairs may be made of, by age: not retired, no twin held out, with any of
        `tags` if there are some."""
        twin = aliased(PromptRow)
        query = select(PromptRow.text).where(
            PromptRow.held_out.is_(False),
            PromptRow.retired_at.is_(None),
            ~exists().where(twin.folded == PromptRow.folded, twin.held_out.is_(True)),
        )
        if tags:
            query = query.where(exists().where(PromptTagRow.prompt_id == PromptRow.id, PromptTagRow.tag.in_(tags)))
        with self._database.reader() as connection:
            return connection.execute(query.order_by(PromptRow.id)).scalars().all()

    def snapshot(self, held_out: bool | None = None) -> PromptSnapshot:
        """What new prompts are compared with: all prompts, retired ones too, or one side of them."""
        query = select(PromptRow.id, PromptRow.text, PromptRow.folded, PromptRow.held_out).order_by(PromptRow.id)
        if held_out is not None:
            query = query.where(PromptRow.held_out == held_out)
        with self._database.reader() as connection:
            state = _state(connection)
            return PromptSnapshot(state, [KnownPrompt(*row) for row in connection.execute(query)])

    def take_in(self, prompts: Sequence[NewPrompt], *, expected: PromptsState, by: str) -> PromptsState | None:
        """Add imported prompts in one transaction, an act of `by`; returns the state after it. None: see the class.

        Raises IntegrityError for a text that is there already, or that the database refuses to hold out.
        """

        def work(connection: Connection) -> PromptsState | None:
            if _state(connection) != expected:
                return None
            now = self._now()
            ids = _insert(connection, prompts, PromptSource.IMPORT, now)
            held_out = sum(prompt.held_out for prompt in prompts)
            subject = f"{len(ids)} prompts, {held_out} of them held out: {in_ranges(ids)}"
            record_act(connection, by, "import_prompts", subject, at=now)
            return _state(connection)

        return self._database.write(work)

    def propose(self, prompt: NewPrompt, *, annotator_id: int, per_day: int, expected: PromptsState) -> bool | None:
        """Add a training prompt that an annotator thought of. False: it, or a twin, is there; None: see the class.

        Raises TooMany when they proposed `per_day` within the last 24 hours.
        """
        since = self._now() - _DAY

        def work(connection: Connection) -> bool | None:
            if _state(connection) != expected:
                return None
            if connection.execute(select(PromptRow.id).where(PromptRow.folded == prompt.folded)).first() is not None:
                return False
            mine = (PromptProposalRow.annotator_id == annotator_id, PromptProposalRow.created_at > since)
            proposed = select(func.count()).select_from(PromptProposalRow).where(*mine)
            if connection.execute(proposed).scalar_one() >= per_day:
                raise TooMany(f"you have added {per_day} prompts within a day, which is the limit; thank you")
            [prompt_id] = _insert(connection, [prompt], PromptSource.ANNOTATOR, self._now())
            connection.execute(
                insert(PromptProposalRow).values(prompt_id=prompt_id, annotator_id=annotator_id, created_at=self._now())
            )
            return True

        return self._database.write(work)

    def place(self, ids: Sequence[int], *, held_out: bool, expected: PromptsState, by: str) -> PromptsState | None:
        """Move prompts to one side, in one transaction, an act of `by`; None: see the class.

        Raises IntegrityError when one that has pairs, or a twin with pairs, would be held out.
        """

        def work(connection: Connection) -> PromptsState | None:
            if _state(connection) != expected:
                return None
            now = self._now()
            moved: list[int] = []
            for start in range(0, len(ids), _CHUNK):
                statement = (
                    update(PromptRow)
                    .where(PromptRow.id.in_(ids[start : start + _CHUNK]), PromptRow.held_out != held_out)
                    .values(held_out=held_out, placed_at=now)
                    .returning(PromptRow.id)
                )
                moved += connection.execute(statement).scalars()
            if moved:
                act = "hold_out_prompts" if held_out else "train_prompts"
                record_act(connection, by, act, f"prompts {in_ranges(moved)}", at=now)
            return _state(connection)

        return self._database.write(work)

    def with_pairs(self) -> set[int]:
        """The ids of prompts that have pairs, of whichever base model."""
        query = select(PromptRow.id).where(
            exists().where(PairRow.base_id == BaseModelRow.id, PairRow.prompt_id == PromptRow.id)
        )
        with self._database.reader() as connection:
            return set(connection.execute(query).scalars())


def ensure_prompts(
    connection: Connection, texts: Sequence[str], *, held_out: bool, at: datetime, moved_may_stay: bool = False
) -> list[Prompt]:
    """`Prompts.ensure` as a part of a transaction. `moved_may_stay`: no Conflict for prompts moved by hand."""
    wanted = list(dict.fromkeys(texts))
    known = _find(connection, wanted, held_out=held_out, moved_may_stay=moved_may_stay)
    new = [text for text in wanted if text not in known]
    if new:
        folded = {text: fold(text) for text in new}
        _refuse_twins(connection, folded, held_out=held_out)
        connection.execute(
            insert(PromptRow),
            [{"text": text, "folded": folded[text], "held_out": held_out, "created_at": at} for text in new],
        )
        known |= _find(connection, new, held_out=held_out, moved_may_stay=False)
    return [known[text] for text in texts]


def _find(connection: Connection, texts: Sequence[str], *, held_out: bool, moved_may_stay: bool) -> dict[str, Prompt]:
    found: dict[str, Prompt] = {}
    for start in range(0, len(texts), _CHUNK):
        query = select(PromptRow.id, PromptRow.text, PromptRow.held_out, PromptRow.placed_at).where(
            PromptRow.text.in_(texts[start : start + _CHUNK])
        )
        for row in connection.execute(query):
            if row.held_out != held_out and not (moved_may_stay and row.placed_at is not None):
                _refuse(row.text, row.text, held_out=held_out)
            found[row.text] = Prompt(row.id, row.text, row.held_out)
    return found


def _refuse_twins(connection: Connection, folded: dict[str, str], *, held_out: bool) -> None:
    texts = {value: text for text, value in folded.items()}
    values = list(texts)
    for start in range(0, len(values), _CHUNK):
        query = select(PromptRow.text, PromptRow.folded).where(
            PromptRow.folded.in_(values[start : start + _CHUNK]), PromptRow.held_out != held_out
        )
        for row in connection.execute(query):
            _refuse(texts[row.folded], row.text, held_out=held_out)


def _refuse(text: str, twin: str, *, held_out: bool) -> None:
    side = "has been trained on in this home" if held_out else "is held out of training"
    which = f"the prompt {text!r} {side}" if text == twin else f"the prompt {text!r} has a twin, {twin!r}, that {side}"
    raise Conflict(f"{which}; it cannot be both. Take it out of one of the lists")


def _insert(connection: Connection, prompts: Sequence[NewPrompt], source: PromptSource, at: datetime) -> list[int]:
    """Few statements however many prompts: votes wait while this runs. Returns their ids."""
    if not prompts:
        return []
    rows = [{"text": prompt.text, "folded": prompt.folded, "held_out": prompt.held_out} for prompt in prompts]
    connection.execute(insert(PromptRow).values(source=source, created_at=at), rows)
    ids: dict[str, int] = {}
    for start in range(0, len(rows), _CHUNK):
        texts = [row["text"] for row in rows[start : start + _CHUNK]]
        query = select(PromptRow.text, PromptRow.id).where(PromptRow.text.in_(texts))
        ids |= {row.text: row.id for row in connection.execute(query)}
    tagged = [{"prompt_id": ids[prompt.text], "tag": tag} for prompt in prompts for tag in dict.fromkeys(prompt.tags)]
    if tagged:
        connection.execute(insert(PromptTagRow), tagged)
    return [ids[prompt.text] for prompt in prompts]


def _state(connection: Connection) -> PromptsState:
    query = select(func.max(PromptRow.id), func.count().filter(PromptRow.held_out), func.max(PromptRow.placed_at))
    last_id, num_held_out, last_placed = connection.execute(query).one()
    return PromptsState(last_id or 0, num_held_out, last_placed)
