"""Tags of prompts, as parts of transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete, insert, select

from dmpo_app.store.schema import PromptTagRow

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
