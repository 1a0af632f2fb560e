"""Prompts as they are listed, found, tagged and retired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, exists, func, insert, literal, select, update

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.prompt import PromptCounts, PromptEntry, PromptPage, PromptQuery, SuggestedPrompt
from dmpo_app.errors import NotFound
from dmpo_app.store.audit import in_ranges, record_act
from dmpo_app.store.db.database import Database
from dmpo_app.store.schema import PairRow, PromptRow, PromptTagRow

_CHUNK = 500


def add_tags(connection: Connection, ids: Sequence[int], tags: Iterable[str]) -> set[int]:
    """Give these tags to these prompts; those that have one keep it. Returns the prompts that got any."""
    changed: set[int] = set()
    for tag in dict.fromkeys(tags):
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            tagged = select(PromptTagRow.prompt_id).where(PromptTagRow.tag == tag, PromptTagRow.prompt_id.in_(chunk))
            have = set(connection.execute(tagged).scalars())
            rows = [{"prompt_id": prompt_id, "tag": tag} for prompt_id in dict.fromkeys(chunk) if prompt_id not in have]
            if rows:
                connection.execute(insert(PromptTagRow), rows)
                changed |= set(chunk) - have
    return changed


def remove_tags(connection: Connection, ids: Sequence[int], tags: Sequence[str]) -> set[int]:
    """Take these tags away from these prompts. Returns the prompts that lost any."""
    changed: set[int] = set()
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        tagged = delete(PromptTagRow).where(PromptTagRow.prompt_id.in_(chunk), PromptTagRow.tag.in_(tags))
        changed |= set(connection.execute(tagged.returning(PromptTagRow.prompt_id)).scalars())
    return changed


def tags_of(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The tags of each of these prompts that has any, in alphabetical order."""
    found: dict[int, list[str]] = {}
    for start in range(0, len(ids), _CHUNK):
        query = select(PromptTagRow.prompt_id, PromptTagRow.tag).where(
            PromptTagRow.prompt_id.in_(ids[start : start + _CHUNK])
        )
        for row in connection.execute(query.order_by(PromptTagRow.tag)):
            found.setdefault(row.prompt_id, []).append(row.tag)
    return {prompt_id: tuple(tags) for prompt_id, tags in found.items()}


class PromptCatalog:
    """What is said about prompts and done with them, but for their sides. What changes them is an act of `by`."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def page(self, base: BaseModelRef, query: PromptQuery) -> PromptPage:
        """The prompts that meet the query, the newest first, with the pairs and votes of one lineage."""
        conditions = _conditions(query)
        listed = select(PromptRow).where(*conditions).order_by(PromptRow.id.desc()).limit(query.limit)
        if query.before is not None:
            listed = listed.where(PromptRow.id < query.before)
        with self._database.reader() as connection:
            total = connection.execute(select(func.count()).select_from(PromptRow).where(*conditions)).scalar_one()
            rows = connection.execute(listed).mappings().all()
            ids = [row["id"] for row in rows]
            tags, judged = tags_of(connection, ids), _judged(connection, base, ids)
        return PromptPage([_entry(row, tags, judged) for row in rows], total)

    def counts(self) -> PromptCounts:
        """How many there are of each kind."""
        kinds = select(
            func.count().filter(~PromptRow.held_out),
            func.count().filter(PromptRow.held_out),
            func.count().filter(PromptRow.retired_at.is_not(None)),
        )
        tags = select(PromptTagRow.tag, func.count()).group_by(PromptTagRow.tag).order_by(PromptTagRow.tag)
        with self._database.reader() as connection:
            training, held_out, retired = connection.execute(kinds).one()
            return PromptCounts(training, held_out, retired, {row[0]: row[1] for row in connection.execute(tags)})

    def ids_tagged(self, tag: str) -> list[int]:
        """The prompts that have a tag, by age."""
        query = select(PromptTagRow.prompt_id).where(PromptTagRow.tag == tag).order_by(PromptTagRow.prompt_id)
        with self._database.reader() as connection:
            return list(connection.execute(query).scalars())

    def suggest(self, words: Sequence[str], count: int) -> list[SuggestedPrompt]:
        """Prompts with words that begin with each of `words` (folded), not retired ones; the shortest first, and
        without words some of the held-out ones."""
        query = select(PromptRow.text, PromptRow.held_out).where(PromptRow.retired_at.is_(None), *_beginnings(words))
        if words:
            query = query.order_by(func.length(PromptRow.text), PromptRow.id)
        else:
            query = query.order_by(PromptRow.held_out.desc(), PromptRow.id)
        with self._database.reader() as connection:
            return [SuggestedPrompt(*row) for row in connection.execute(query.limit(count))]

    def retire(self, ids: Sequence[int], *, by: str) -> int:
        """Make no more pairs of these; what there is stays. Returns how many were not retired yet. Raises NotFound."""
        return self._set_retired(ids, retired=True, by=by)

    def restore(self, ids: Sequence[int], *, by: str) -> int:
        """Undo `retire`; returns how many were retired. Raises NotFound."""
        return self._set_retired(ids, retired=False, by=by)

    def tag(self, ids: Sequence[int], tags: Sequence[str], *, by: str) -> None:
        """Raises NotFound."""

        def work(connection: Connection) -> None:
            _check(connection, ids)
            self._note(connection, by, "tag_prompts", add_tags(connection, ids, tags), tags)

        self._database.write(work)

    def untag(self, ids: Sequence[int], tags: Sequence[str], *, by: str) -> None:
        """Raises NotFound."""

        def work(connection: Connection) -> None:
            _check(connection, ids)
            self._note(connection, by, "untag_prompts", remove_tags(connection, ids, tags), tags)

        self._database.write(work)

    def _set_retired(self, ids: Sequence[int], *, retired: bool, by: str) -> int:
        def work(connection: Connection) -> int:
            _check(connection, ids)
            at = self._now() if retired else None
            other = PromptRow.retired_at.is_(None) if retired else PromptRow.retired_at.is_not(None)
            changed: set[int] = set()
            for start in range(0, len(ids), _CHUNK):
                statement = update(PromptRow).where(PromptRow.id.in_(ids[start : start + _CHUNK]), other)
                changed |= set(connection.execute(statement.values(retired_at=at).returning(PromptRow.id)).scalars())
            self._note(connection, by, "retire_prompts" if retired else "restore_prompts", changed)
            return len(changed)

        return self._database.write(work)

    def _note(self, connection: Connection, by: str, act: str, changed: set[int], tags: Sequence[str] = ()) -> None:
        """Record an act, if it changed anything."""
        if changed:
            which = f"{', '.join(tags)}: " if tags else ""
            record_act(connection, by, act, f"{which}prompts {in_ranges(changed)}", at=self._now())


def _check(connection: Connection, ids: Sequence[int]) -> None:
    """Raise NotFound unless there are all of these prompts."""
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        known = set(connection.execute(select(PromptRow.id).where(PromptRow.id.in_(chunk))).scalars())
        missing = sorted(set(chunk) - known)
        if missing:
            raise NotFound(f"there is no prompt {missing[0]}; `dmpo prompts list` shows them with their numbers")


def _conditions(query: PromptQuery) -> list[ColumnElement[bool]]:
    conditions = _beginnings(query.search)
    if query.tag is not None:
        conditions.append(exists().where(PromptTagRow.prompt_id == PromptRow.id, PromptTagRow.tag == query.tag))
    if query.held_out is not None:
        conditions.append(PromptRow.held_out == query.held_out)
    if query.retired is not None:
        conditions.append(PromptRow.retired_at.is_not(None) if query.retired else PromptRow.retired_at.is_(None))
    return conditions


def _beginnings(words: Sequence[str]) -> list[ColumnElement[bool]]:
    """Folded words hold no % or _, and stand between single blanks."""
    return [(literal(" ") + PromptRow.folded).contains(f" {word}", autoescape=True) for word in words]


def _judged(connection: Connection, base: BaseModelRef, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """The pairs of each prompt and their live votes."""
    found: dict[int, tuple[int, int]] = {}
    for start in range(0, len(ids), _CHUNK):
        query = (
            select(PairRow.prompt_id, func.count(), func.sum(PairRow.num_votes))
            .where(PairRow.base_id == base.id, PairRow.prompt_id.in_(ids[start : start + _CHUNK]))
            .group_by(PairRow.prompt_id)
        )
        found |= {row[0]: (row[1], row[2]) for row in connection.execute(query)}
    return found


def _entry(row: RowMapping, tags: dict[int, tuple[str, ...]], judged: dict[int, tuple[int, int]]) -> PromptEntry:
    values: dict[str, Any] = {
        name: row[name] for name in ("id", "text", "held_out", "source", "retired_at", "created_at")
    }
    num_pairs, num_votes = judged.get(row["id"], (0, 0))
    return PromptEntry(**values, tags=tags.get(row["id"], ()), num_pairs=num_pairs, num_votes=num_votes)
