"""Prompts as text files that `prompt_files` reads back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dmpo_app.domain.prompt import PromptEntry
from dmpo_app.errors import BadInput

FIELDS = ("id", "prompt", "held_out", "tags", "source", "retired", "pairs", "votes", "created_at")


def exported(prompts: Sequence[PromptEntry], file_format: str) -> str:
    """The prompts as txt (texts alone, a line each), csv or jsonl. Raises BadInput for another format."""
    write = _WRITERS.get(file_format)
    if write is None:
        raise BadInput(f"prompts cannot be written as {file_format!r}; there are: {', '.join(_WRITERS)}")
    return write([_fields(prompt) for prompt in prompts])


def _fields(prompt: PromptEntry) -> dict[str, Any]:
    values = (
        prompt.id, prompt.text, prompt.held_out, list(prompt.tags), prompt.source.value, prompt.retired_at is not None,
        prompt.num_pairs, prompt.num_votes, prompt.created_at.isoformat(),
    )  # fmt: skip
    return dict(zip(FIELDS, values, strict=True))


def _texts(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(" ".join(row["prompt"].split()) + "\n" for row in rows)


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "tags": " ".join(row["tags"])} for row in rows)
    return stream.getvalue()


def _objects(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


_WRITERS: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {"txt": _texts, "csv": _csv_text, "jsonl": _objects}
