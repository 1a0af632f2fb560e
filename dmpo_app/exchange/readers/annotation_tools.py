"""Exports of annotation tools: Argilla and Label Studio, and how their answers are read.

Argilla exports JSON or `datasets`. In the JSON a record has `fields` and `responses`; in the other the fields are
columns, and a question is the columns QUESTION.responses and QUESTION.responses.users. Discarded and unsubmitted
responses are no votes. Where there are several questions, the first one that has responses is read.

Label Studio's export does not say which image stood left: names in alphabetical order (image1, image2; left, right) do.
Files are searched beside the JSON file: `/data/local-files/?d=X` as X, `/data/upload/1/X` as upload/1/X. Nothing is
fetched.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dmpo_app.exchange.readers.reader import LeftOutReason, Row, RowMetadata, RowPair, has_columns

TIE, BOTH_BAD, SKIP = "tie", "both_bad", "skip"
_A = frozenset({"a", "left", "1", "first", "image_a", "image_1", "image1", "image_left", "left_image", "option_1"})
_B = frozenset({"b", "right", "2", "second", "image_b", "image_2", "image2", "image_right", "right_image", "option_2"})
_TIE = frozenset({"tie", "equal", "same", "draw", "both", "both_good", "no_preference", "no_difference", "similar"})
_BAD = frozenset({"both_bad", "neither", "none", "bad"})
_IMAGE = re.compile(r"\.(png|jpe?g|webp)$", re.IGNORECASE)
_PROMPTS = ("prompt", "caption", "text", "instruction", "images.prompt")


def parse_label(value: object, name_a: str, name_b: str) -> tuple[float | LeftOutReason, str | None]:
    """Parse a label, or a ranking [{"value": name, "rank": 1}, ...], to (wins of a, outcome that cannot hold).

    `name_a` and `name_b`: what the images are called in the row.
    """
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        ranks = {str(one.get("value")): one.get("rank") for one in value}
        rank_a, rank_b = ranks.get(name_a), ranks.get(name_b)
        if not (isinstance(rank_a, int) and isinstance(rank_b, int)):
            return LeftOutReason.UNCLEAR_LABEL, None
        return (0.5 if rank_a == rank_b else float(rank_a < rank_b)), None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    label = _normalize_label(str(value))
    for names, wins in (
        ({_normalize_label(name_a)}, 1.0),
        ({_normalize_label(name_b)}, 0.0),
        (_A, 1.0),
        (_B, 0.0),
        (_TIE, 0.5),
    ):
        if label in names:
            return wins, None
    return LeftOutReason.UNCLEAR_LABEL, BOTH_BAD if label in _BAD else None


def find_two_images(cells: Mapping[str, object]) -> tuple[str, str]:
    """Find the two cells with images; their names in alphabetical order. Raises ValueError unless there are two."""
    names = sorted(name for name, cell in cells.items() if _is_image(cell))
    if len(names) != 2:
        raise ValueError(f"{len(names)} images, expected 2")
    return names[0], names[1]


def find_prompt(cells: Mapping[str, object], images: tuple[str, str]) -> object:
    """Find the cell with the prompt: the one that is called so, else the only other text. None: there is none."""
    for name in _PROMPTS:
        if isinstance(cells.get(name), str):
            return cells[name]
    others = [cell for name, cell in cells.items() if isinstance(cell, str) and name not in images]
    return others[0] if len(others) == 1 else None


def _is_image(cell: object) -> bool:
    if isinstance(cell, Mapping):
        return bool(cell.get("bytes") or cell.get("path"))
    if isinstance(cell, bytes):
        return True
    return isinstance(cell, str) and (cell.startswith("data:image/") or bool(_IMAGE.search(cell)))


def _normalize_label(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


_RESPONSES, _USERS, _STATUS = ".responses", ".responses.users", ".responses.status"
_RECORD_KEYS = frozenset({"id", "status", "_server_id"})
_SUBMITTED = (None, "submitted", "ResponseStatus.submitted")


class ArgillaReader:
    name = "argilla"
    description = "Argilla export (JSON or datasets): two image fields, a label or ranking question"
    columns = (frozenset({"fields", "responses"}),)
    extras: frozenset[str] | None = None

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns) or any(column.endswith(_USERS) for column in columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        fields = row["fields"] if "fields" in row else _fields_from_columns(row)
        names = find_two_images(fields)
        prompt = find_prompt(fields, names)
        image_a, image_b = (fields[name] for name in names)
        responses = list(_responses(row))
        if not responses:
            yield RowPair(prompt, image_a, image_b, LeftOutReason.MISSING_LABEL)
        for user, value in responses:
            wins, outcome = parse_label(value, *names)
            yield RowPair(prompt, image_a, image_b, wins, metadata=RowMetadata(annotator=user, outcome=outcome))


def _fields_from_columns(row: Row) -> dict[str, object]:
    return {name: cell for name, cell in row.items() if name not in _RECORD_KEYS and "." not in name}


def _require_list(cell: Any) -> list[Any]:
    """A cell that is a list. Raises TypeError: each letter of a text would be a response."""
    if not isinstance(cell, list):
        raise TypeError("responses are a list")
    return cell


def _responses(row: Row) -> Iterator[tuple[object, object]]:
    """(user, value) of every submitted response to the first question that has some."""
    if "responses" in row:
        questions: Iterable[Iterable[Mapping[str, Any]]] = (row["responses"] or {}).values()
        for responses in map(_require_list, questions):
            submitted = [one for one in responses if one.get("status") in _SUBMITTED]
            yield from ((one.get("user_id"), one["value"]) for one in submitted)
            if submitted:
                return
        return
    for column in row:
        if not column.endswith(_RESPONSES):
            continue
        values = _require_list(row[column] or [])
        question = column.removesuffix(_RESPONSES)
        users = row.get(question + _USERS) or [None] * len(values)
        statuses = row.get(question + _STATUS) or [None] * len(values)
        submitted_here = [one for one in zip(users, values, statuses, strict=True) if one[2] in _SUBMITTED]
        yield from ((user, value) for user, value, _ in submitted_here)
        if submitted_here:
            return


class LabelStudioReader:
    name = "label-studio"
    description = "Label Studio JSON export: data with two images, annotations"
    columns = (frozenset({"data", "annotations"}),)
    extras: frozenset[str] | None = frozenset()

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        data: Mapping[str, Any] = row["data"]
        names = find_two_images(data)
        prompt = find_prompt(data, names)
        image_a, image_b = (_local_path(data[name]) for name in names)
        valid_annotations = [one for one in row["annotations"] if not one.get("was_cancelled")]
        if not valid_annotations:
            yield RowPair(prompt, image_a, image_b, LeftOutReason.MISSING_LABEL)
        for one in valid_annotations:
            wins, outcome = _parse_annotation(one["result"], names)
            completed_by = one.get("completed_by")
            metadata = RowMetadata(
                annotator=completed_by.get("id") or completed_by.get("email")
                if isinstance(completed_by, Mapping)
                else completed_by,
                outcome=outcome,
                elapsed_ms=_milliseconds(one.get("lead_time")),
                given_at=one.get("created_at"),
                a_on_left=True,
            )
            yield RowPair(prompt, image_a, image_b, wins, metadata=metadata)


def _parse_annotation(
    results: Iterable[Mapping[str, Any]], names: tuple[str, str]
) -> tuple[float | LeftOutReason, str | None]:
    """Parse an annotation. `Choices` come before `Pairwise`: only they can say that neither side is better."""
    by_kind = {one["type"]: one["value"] for one in results}
    if "choices" in by_kind:
        answer = parse_label(by_kind["choices"]["choices"], *names)
        if answer != (LeftOutReason.UNCLEAR_LABEL, None) or "pairwise" not in by_kind:
            return answer
    if "pairwise" in by_kind:
        return parse_label(by_kind["pairwise"]["selected"], *names)
    return LeftOutReason.MISSING_LABEL, None


def _milliseconds(seconds: object) -> int | None:
    return round(1000 * seconds) if isinstance(seconds, int | float) and seconds else None


def _local_path(cell: Any) -> object:
    if not isinstance(cell, str) or not cell.startswith("/data/"):
        return cell
    address = urlsplit(cell)
    if address.path.startswith("/data/local-files"):
        return parse_qs(address.query).get("d", [""])[0]
    return address.path.removeprefix("/data/")
