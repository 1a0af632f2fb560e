"""The prompt catalog: listing, searching, tagging and retiring prompts."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, exists, func, insert, literal, select, update

from dmpo_app.domain.lineage import BaseModelRef, PairSource
from dmpo_app.domain.prompt import PromptCounts, PromptEntry, PromptPage, PromptQuery, SuggestedPrompt
from dmpo_app.errors import NotFoundError
from dmpo_app.store import schema
from dmpo_app.store.audit import format_ranges, record_act
from dmpo_app.store.db.database import Database

_CHUNK = 500


def add_tags(connection: Connection, ids: Sequence[int], tags: Iterable[str]) -> set[int]:
    """Add tags to prompts; returns the prompts that got any."""
    changed_ids: set[int] = set()
    for tag in dict.fromkeys(tags):
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            tagged_query = select(schema.PromptTagRow.prompt_id).where(
                schema.PromptTagRow.tag == tag, schema.PromptTagRow.prompt_id.in_(chunk)
            )
            tagged_ids = set(connection.execute(tagged_query).scalars())
            rows = [
                {"prompt_id": prompt_id, "tag": tag}
                for prompt_id in dict.fromkeys(chunk)
                if prompt_id not in tagged_ids
            ]
            if rows:
                connection.execute(insert(schema.PromptTagRow), rows)
                changed_ids |= set(chunk) - tagged_ids
    return changed_ids


def remove_tags(connection: Connection, ids: Sequence[int], tags: Sequence[str]) -> set[int]:
    """Remove tags from prompts; returns the prompts that lost any."""
    changed_ids: set[int] = set()
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        delete_statement = delete(schema.PromptTagRow).where(
            schema.PromptTagRow.prompt_id.in_(chunk), schema.PromptTagRow.tag.in_(tags)
        )
        changed_ids |= set(connection.execute(delete_statement.returning(schema.PromptTagRow.prompt_id)).scalars())
    return changed_ids


def find_tags(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Find the tags of each of these prompts that has any, in alphabetical order."""
    tags_by_prompt: dict[int, list[str]] = {}
    for start in range(0, len(ids), _CHUNK):
        query = select(schema.PromptTagRow.prompt_id, schema.PromptTagRow.tag).where(
            schema.PromptTagRow.prompt_id.in_(ids[start : start + _CHUNK])
        )
        for row in connection.execute(query.order_by(schema.PromptTagRow.tag)):
            tags_by_prompt.setdefault(row.prompt_id, []).append(row.tag)
    return {prompt_id: tuple(tags) for prompt_id, tags in tags_by_prompt.items()}


class PromptCatalog:
    """The catalog of prompts, without moves between the sides. Whatever changes prompts is an act of `by`."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def page(self, base: BaseModelRef, query: PromptQuery) -> PromptPage:
        """A page of the prompts that meet the query, the newest first, with the pairs and votes of one lineage."""
        conditions = _conditions(query)
        prompts_query = (
            select(schema.PromptRow).where(*conditions).order_by(schema.PromptRow.id.desc()).limit(query.limit)
        )
        if query.before is not None:
            prompts_query = prompts_query.where(schema.PromptRow.id < query.before)
        with self._database.reader() as connection:
            total = connection.execute(
                select(func.count()).select_from(schema.PromptRow).where(*conditions)
            ).scalar_one()
            rows = connection.execute(prompts_query).mappings().all()
            ids = [row["id"] for row in rows]
            tags, counts = find_tags(connection, ids), _count_pairs_and_votes(connection, base, ids)
        return PromptPage([_entry(row, tags, counts) for row in rows], total)

    def counts(self) -> PromptCounts:
        """Count the prompts of each kind."""
        kinds = select(
            func.count().filter(~schema.PromptRow.held_out),
            func.count().filter(schema.PromptRow.held_out),
            func.count().filter(schema.PromptRow.retired_at.is_not(None)),
        )
        tags = (
            select(schema.PromptTagRow.tag, func.count())
            .group_by(schema.PromptTagRow.tag)
            .order_by(schema.PromptTagRow.tag)
        )
        with self._database.reader() as connection:
            training, held_out, retired = connection.execute(kinds).one()
            return PromptCounts(training, held_out, retired, {row[0]: row[1] for row in connection.execute(tags)})

    def ids_tagged(self, tag: str) -> list[int]:
        """List the ids of the prompts with a tag, by age."""
        query = (
            select(schema.PromptTagRow.prompt_id)
            .where(schema.PromptTagRow.tag == tag)
            .order_by(schema.PromptTagRow.prompt_id)
        )
        with self._database.reader() as connection:
            return list(connection.execute(query).scalars())

    def suggest(self, words: Sequence[str], count: int) -> list[SuggestedPrompt]:
        """Suggest prompts with words that begin with each of `words` (folded), not retired ones.

        The shortest first, and without words some of the held-out ones.
        """
        query = select(schema.PromptRow.text, schema.PromptRow.held_out).where(
            schema.PromptRow.retired_at.is_(None), *_prefix_conditions(words)
        )
        if words:
            query = query.order_by(func.length(schema.PromptRow.text), schema.PromptRow.id)
        else:
            query = query.order_by(schema.PromptRow.held_out.desc(), schema.PromptRow.id)
        with self._database.reader() as connection:
            return [SuggestedPrompt(*row) for row in connection.execute(query.limit(count))]

    def retire(self, ids: Sequence[int], *, by: str) -> int:
        """Retire prompts: no more pairs are made of them. Returns how many were not retired. Raises NotFoundError."""
        return self._set_retired(ids, retired=True, by=by)

    def restore(self, ids: Sequence[int], *, by: str) -> int:
        """Undo `retire`; returns how many were retired. Raises NotFoundError."""
        return self._set_retired(ids, retired=False, by=by)

    def tag(self, ids: Sequence[int], tags: Sequence[str], *, by: str) -> None:
        """Add tags to prompts. Raises NotFoundError."""

        def work(connection: Connection) -> None:
            _require_prompts(connection, ids)
            self._record(connection, by, "tag_prompts", add_tags(connection, ids, tags), tags)

        self._database.write(work)

    def untag(self, ids: Sequence[int], tags: Sequence[str], *, by: str) -> None:
        """Remove tags from prompts. Raises NotFoundError."""

        def work(connection: Connection) -> None:
            _require_prompts(connection, ids)
            self._record(connection, by, "untag_prompts", remove_tags(connection, ids, tags), tags)

        self._database.write(work)

    def _set_retired(self, ids: Sequence[int], *, retired: bool, by: str) -> int:
        def work(connection: Connection) -> int:
            _require_prompts(connection, ids)
            at = self._now() if retired else None
            other = schema.PromptRow.retired_at.is_(None) if retired else schema.PromptRow.retired_at.is_not(None)
            changed_ids: set[int] = set()
            for start in range(0, len(ids), _CHUNK):
                statement = update(schema.PromptRow).where(schema.PromptRow.id.in_(ids[start : start + _CHUNK]), other)
                changed_ids |= set(
                    connection.execute(statement.values(retired_at=at).returning(schema.PromptRow.id)).scalars()
                )
            self._record(connection, by, "retire_prompts" if retired else "restore_prompts", changed_ids)
            return len(changed_ids)

        return self._database.write(work)

    def _record(
        self, connection: Connection, by: str, act: str, changed_ids: set[int], tags: Sequence[str] = ()
    ) -> None:
        """Record an act, if it changed anything."""
        if changed_ids:
            tag_prefix = f"{', '.join(tags)}: " if tags else ""
            record_act(connection, by, act, f"{tag_prefix}prompts {format_ranges(changed_ids)}", at=self._now())


def _require_prompts(connection: Connection, ids: Sequence[int]) -> None:
    """Raise NotFoundError unless all of these prompts exist."""
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        existing_ids = set(
            connection.execute(select(schema.PromptRow.id).where(schema.PromptRow.id.in_(chunk))).scalars()
        )
        missing = sorted(set(chunk) - existing_ids)
        if missing:
            raise NotFoundError(f"there is no prompt {missing[0]}; `dmpo prompts list` shows them with their numbers")


def _conditions(query: PromptQuery) -> list[ColumnElement[bool]]:
    conditions = _prefix_conditions(query.search)
    if query.tag is not None:
        conditions.append(
            exists().where(schema.PromptTagRow.prompt_id == schema.PromptRow.id, schema.PromptTagRow.tag == query.tag)
        )
    if query.held_out is not None:
        conditions.append(schema.PromptRow.held_out == query.held_out)
    if query.retired is not None:
        conditions.append(
            schema.PromptRow.retired_at.is_not(None) if query.retired else schema.PromptRow.retired_at.is_(None)
        )
    return conditions


def _prefix_conditions(words: Sequence[str]) -> list[ColumnElement[bool]]:
    """Conditions of words that begin so. Folded words hold no % or _, and stand between single blanks."""
    return [(literal(" ") + schema.PromptRow.folded).contains(f" {word}", autoescape=True) for word in words]


def _count_pairs_and_votes(
    connection: Connection, base: BaseModelRef, ids: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Count the pairs of each prompt, without duels, and their live votes."""
    counts_by_prompt: dict[int, tuple[int, int]] = {}
    for start in range(0, len(ids), _CHUNK):
        query = (
            select(schema.PairRow.prompt_id, func.count(), func.sum(schema.PairRow.num_votes))
            .where(schema.PairRow.base_id == base.id, schema.PairRow.prompt_id.in_(ids[start : start + _CHUNK]))
            .where(schema.PairRow.source != PairSource.DUEL)
            .group_by(schema.PairRow.prompt_id)
        )
        counts_by_prompt |= {row[0]: (row[1], row[2]) for row in connection.execute(query)}
    return counts_by_prompt


def _entry(row: RowMapping, tags: dict[int, tuple[str, ...]], counts: dict[int, tuple[int, int]]) -> PromptEntry:
    values: dict[str, Any] = {
        name: row[name] for name in ("id", "text", "held_out", "source", "retired_at", "created_at")
    }
    num_pairs, num_votes = counts.get(row["id"], (0, 0))
    return PromptEntry(**values, tags=tags.get(row["id"], ()), num_pairs=num_pairs, num_votes=num_votes)
