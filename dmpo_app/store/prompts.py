"""Training prompts, of which pairs are made, and held-out prompts."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, exists, func, insert, select, update
from sqlalchemy.orm import aliased

from dmpo_app.domain.lineage import PairSource, Prompt
from dmpo_app.domain.prompt import NewPrompt, PromptSnapshot, PromptSource, PromptsState, StoredPrompt, fold
from dmpo_app.errors import ConflictError, ForbiddenError, RateLimitError
from dmpo_app.store import schema
from dmpo_app.store.audit import format_ranges, record_act
from dmpo_app.store.db.database import Database

_CHUNK = 500
"""Texts in one IN (...), since databases bound the number of parameters."""

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NewcomerPromptLimit:
    """The share of the training prompts that those who are not `established` may have added."""

    established: Collection[int]
    max_share: float


class Prompts:
    """All prompts of a home, and the side of each: training or held out.

    New prompts are compared with a `snapshot` first, which may take a while; the methods that then write take the
    snapshot's state, and do nothing and return None when it is no longer the present one.
    """

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def ensure(self, texts: Sequence[str], *, held_out: bool) -> list[Prompt]:
        """Get or add the prompts of these texts, in their order. Those that were moved by hand are left there.

        Raises ConflictError when one, or a twin of it, is on the other side already: a yardstick that was trained on
        measures nothing.
        """
        return self._database.write(
            lambda connection: ensure_prompts(connection, texts, held_out=held_out, at=self._now(), allow_moved=True)
        )

    def list(self, held_out: bool | None = None) -> list[Prompt]:
        """List all prompts in the order they were added, or one side of them."""
        query = select(schema.PromptRow.id, schema.PromptRow.text, schema.PromptRow.held_out).order_by(
            schema.PromptRow.id
        )
        if held_out is not None:
            query = query.where(schema.PromptRow.held_out == held_out)
        with self._database.reader() as connection:
            return [Prompt(*row) for row in connection.execute(query)]

    def for_pairs(self, tags: Sequence[str] = ()) -> Sequence[str]:
        """List the training prompts for new pairs, by age.

        They are not retired, have no twin that is held out, and have any of `tags` if there are some.
        """
        twin = aliased(schema.PromptRow)
        query = select(schema.PromptRow.text).where(
            schema.PromptRow.held_out.is_(False),
            schema.PromptRow.retired_at.is_(None),
            ~exists().where(twin.folded == schema.PromptRow.folded, twin.held_out.is_(True)),
        )
        if tags:
            query = query.where(
                exists().where(schema.PromptTagRow.prompt_id == schema.PromptRow.id, schema.PromptTagRow.tag.in_(tags))
            )
        with self._database.reader() as connection:
            return connection.execute(query.order_by(schema.PromptRow.id)).scalars().all()

    def snapshot(self, held_out: bool | None = None) -> PromptSnapshot:
        """A snapshot of all prompts, retired ones too, or of one side, to compare new prompts with."""
        query = select(
            schema.PromptRow.id, schema.PromptRow.text, schema.PromptRow.folded, schema.PromptRow.held_out
        ).order_by(schema.PromptRow.id)
        if held_out is not None:
            query = query.where(schema.PromptRow.held_out == held_out)
        with self._database.reader() as connection:
            state = _state(connection)
            return PromptSnapshot(state, [StoredPrompt(*row) for row in connection.execute(query)])

    def insert_imported(self, prompts: Sequence[NewPrompt], *, expected: PromptsState, by: str) -> PromptsState | None:
        """Insert imported prompts in one transaction, an act of `by`; returns the state after it. None: see the class.

        Raises IntegrityError for a text that is there already, or that the database refuses to hold out.
        """

        def work(connection: Connection) -> PromptsState | None:
            if _state(connection) != expected:
                return None
            now = self._now()
            ids = _insert(connection, prompts, PromptSource.IMPORT, now)
            held_out = sum(prompt.held_out for prompt in prompts)
            subject = f"{len(ids)} prompts, {held_out} of them held out: {format_ranges(ids)}"
            record_act(connection, by, "import_prompts", subject, at=now)
            return _state(connection)

        return self._database.write(work)

    def propose(
        self,
        prompt: NewPrompt,
        *,
        annotator_id: int,
        per_day: int,
        expected: PromptsState,
        newcomer_limit: NewcomerPromptLimit | None = None,
    ) -> bool | None:
        """Add a training prompt of an annotator. False: it, or a twin, is there already; None: see the class.

        `newcomer_limit` holds for somebody who is not established. Raises RateLimitError when they proposed `per_day`
        within the last 24 hours or newcomers have added as many as they may, ForbiddenError for a struck annotator.
        """
        since = self._now() - _DAY

        def work(connection: Connection) -> bool | None:
            if _state(connection) != expected:
                return None
            same_prompt = select(schema.PromptRow.id).where(schema.PromptRow.folded == prompt.folded)
            if connection.execute(same_prompt).first() is not None:
                return False
            _require_not_struck(connection, annotator_id)
            if newcomer_limit is not None:
                _require_room(connection, newcomer_limit)
            recent_conditions = (
                schema.PromptProposalRow.annotator_id == annotator_id,
                schema.PromptProposalRow.created_at > since,
            )
            count_query = select(func.count()).select_from(schema.PromptProposalRow).where(*recent_conditions)
            if connection.execute(count_query).scalar_one() >= per_day:
                raise RateLimitError(f"you have added {per_day} prompts within a day, which is the limit; thank you")
            [prompt_id] = _insert(connection, [prompt], PromptSource.ANNOTATOR, self._now())
            connection.execute(
                insert(schema.PromptProposalRow).values(
                    prompt_id=prompt_id, annotator_id=annotator_id, created_at=self._now()
                )
            )
            return True

        return self._database.write(work)

    def move(self, ids: Sequence[int], *, held_out: bool, expected: PromptsState, by: str) -> PromptsState | None:
        """Move prompts to one side, in one transaction, an act of `by`; None: see the class.

        Raises IntegrityError when one that has pairs, or a twin with pairs, would be held out.
        """

        def work(connection: Connection) -> PromptsState | None:
            if _state(connection) != expected:
                return None
            now = self._now()
            moved_ids: list[int] = []
            for start in range(0, len(ids), _CHUNK):
                statement = (
                    update(schema.PromptRow)
                    .where(schema.PromptRow.id.in_(ids[start : start + _CHUNK]), schema.PromptRow.held_out != held_out)
                    .values(held_out=held_out, placed_at=now)
                    .returning(schema.PromptRow.id)
                )
                moved_ids += connection.execute(statement).scalars()
            if moved_ids:
                act = "hold_out_prompts" if held_out else "train_prompts"
                record_act(connection, by, act, f"prompts {format_ranges(moved_ids)}", at=now)
            return _state(connection)

        return self._database.write(work)

    def ids_with_pairs(self) -> set[int]:
        """Find the ids of prompts that have pairs other than duels, of whichever base model."""
        query = select(schema.PromptRow.id).where(
            exists().where(
                schema.PairRow.base_id == schema.BaseModelRow.id,
                schema.PairRow.prompt_id == schema.PromptRow.id,
                schema.PairRow.source != PairSource.DUEL,
            )
        )
        with self._database.reader() as connection:
            return set(connection.execute(query).scalars())


def _require_not_struck(connection: Connection, annotator_id: int) -> None:
    struck_at = select(schema.AnnotatorRow.struck_at).where(schema.AnnotatorRow.id == annotator_id)
    if connection.execute(struck_at).scalar_one() is not None:
        raise ForbiddenError("this campaign takes no more prompts of yours; ask its team why")


def _require_room(connection: Connection, limit: NewcomerPromptLimit) -> None:
    """Raise RateLimitError when newcomers have added as many of the training prompts as they may."""
    in_use = (schema.PromptRow.held_out.is_(False), schema.PromptRow.retired_at.is_(None))
    proposers = (
        select(schema.PromptProposalRow.annotator_id)
        .join(schema.PromptRow, schema.PromptRow.id == schema.PromptProposalRow.prompt_id)
        .where(*in_use)
    )
    num_added = sum(one not in limit.established for one in connection.execute(proposers).scalars())
    num_prompts = connection.execute(select(func.count()).select_from(schema.PromptRow).where(*in_use)).scalar_one()
    if num_added + 1 > limit.max_share * (num_prompts + 1):
        raise RateLimitError(
            "new people have added as many prompts as they may for now; vote for a while, then try again"
        )


def ensure_prompts(
    connection: Connection, texts: Sequence[str], *, held_out: bool, at: datetime, allow_moved: bool = False
) -> list[Prompt]:
    """Get or add prompts as a part of a transaction. `allow_moved`: no ConflictError for prompts moved by hand."""
    unique_texts = list(dict.fromkeys(texts))
    prompts_by_text = _find(connection, unique_texts, held_out=held_out, allow_moved=allow_moved)
    new = [text for text in unique_texts if text not in prompts_by_text]
    if new:
        folded = {text: fold(text) for text in new}
        _refuse_twins(connection, folded, held_out=held_out)
        connection.execute(
            insert(schema.PromptRow),
            [{"text": text, "folded": folded[text], "held_out": held_out, "created_at": at} for text in new],
        )
        prompts_by_text |= _find(connection, new, held_out=held_out, allow_moved=False)
    return [prompts_by_text[text] for text in texts]


def _find(connection: Connection, texts: Sequence[str], *, held_out: bool, allow_moved: bool) -> dict[str, Prompt]:
    prompts_by_text: dict[str, Prompt] = {}
    for start in range(0, len(texts), _CHUNK):
        query = select(
            schema.PromptRow.id, schema.PromptRow.text, schema.PromptRow.held_out, schema.PromptRow.placed_at
        ).where(schema.PromptRow.text.in_(texts[start : start + _CHUNK]))
        for row in connection.execute(query):
            if row.held_out != held_out and not (allow_moved and row.placed_at is not None):
                _refuse(row.text, row.text, held_out=held_out)
            prompts_by_text[row.text] = Prompt(row.id, row.text, row.held_out)
    return prompts_by_text


def _refuse_twins(connection: Connection, folded: dict[str, str], *, held_out: bool) -> None:
    texts = {value: text for text, value in folded.items()}
    values = list(texts)
    for start in range(0, len(values), _CHUNK):
        query = select(schema.PromptRow.text, schema.PromptRow.folded).where(
            schema.PromptRow.folded.in_(values[start : start + _CHUNK]), schema.PromptRow.held_out != held_out
        )
        for row in connection.execute(query):
            _refuse(texts[row.folded], row.text, held_out=held_out)


def _refuse(text: str, twin: str, *, held_out: bool) -> None:
    side = "has been trained on in this home" if held_out else "is held out of training"
    subject = (
        f"the prompt {text!r} {side}" if text == twin else f"the prompt {text!r} has a twin, {twin!r}, that {side}"
    )
    raise ConflictError(f"{subject}; it cannot be both. Take it out of one of the lists")


def _insert(connection: Connection, prompts: Sequence[NewPrompt], source: PromptSource, at: datetime) -> list[int]:
    """Insert prompts in few statements, since votes wait while this runs; returns their ids."""
    if not prompts:
        return []
    rows = [{"text": prompt.text, "folded": prompt.folded, "held_out": prompt.held_out} for prompt in prompts]
    connection.execute(insert(schema.PromptRow).values(source=source, created_at=at), rows)
    ids: dict[str, int] = {}
    for start in range(0, len(rows), _CHUNK):
        texts = [row["text"] for row in rows[start : start + _CHUNK]]
        query = select(schema.PromptRow.text, schema.PromptRow.id).where(schema.PromptRow.text.in_(texts))
        ids |= {row.text: row.id for row in connection.execute(query)}
    tag_rows = [{"prompt_id": ids[prompt.text], "tag": tag} for prompt in prompts for tag in dict.fromkeys(prompt.tags)]
    if tag_rows:
        connection.execute(insert(schema.PromptTagRow), tag_rows)
    return [ids[prompt.text] for prompt in prompts]


def _state(connection: Connection) -> PromptsState:
    query = select(
        func.max(schema.PromptRow.id),
        func.count().filter(schema.PromptRow.held_out),
        func.max(schema.PromptRow.placed_at),
    )
    last_id, num_held_out, last_placed = connection.execute(query).one()
    return PromptsState(last_id or 0, num_held_out, last_placed)
