"""Prompt files: reading those that people send, in a parser process, and writing the studio's own."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.domain.prompt import PromptEntry
from dmpo_app.errors import BadInputError
from dmpo_app.parsing.children import ParserChild
from dmpo_app.parsing.prompt_rows import FileRow, file_fields, text_fields


def parse_file(path: Path, *, column: str | None, limits: ParserLimits) -> Iterator[FileRow]:
    """Read the rows of a file as `read_file` does, in a process with limits: for files that strangers made."""
    with ParserChild(path.name, limits) as child:
        for number, prompt, category in child.stream(file_fields, path, column, limits):
            yield FileRow(number, prompt, category)


def parse_text(text: str, file_format: str, *, column: str | None, limits: ParserLimits) -> Iterator[FileRow]:
    """Read the rows of a text as `read_text` does, in a process with limits: for texts that strangers sent."""
    with ParserChild("the file", limits) as child:
        for number, prompt, category in child.stream(text_fields, text, file_format, column):
            yield FileRow(number, prompt, category)


FIELDS = ("id", "prompt", "held_out", "tags", "source", "retired", "pairs", "votes", "created_at")


def format_prompts(prompts: Sequence[PromptEntry], file_format: str) -> str:
    """Format prompts as txt (texts alone, a line each), csv or jsonl. Raises BadInputError for another format."""
    write = _WRITERS.get(file_format)
    if write is None:
        raise BadInputError(f"prompts cannot be written as {file_format!r}; there are: {', '.join(_WRITERS)}")
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
