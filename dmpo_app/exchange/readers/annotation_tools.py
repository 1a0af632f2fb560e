"""Exports of annotation tools: Argilla and Label Studio, and how their answers are read.

In the JSON a record has `fields` and `responses`; in the other the fields are columns, and a question is the columns
QUESTION.responses and QUESTION.responses.users. Discarded and unsubmitted responses are no answers. Where there are
several questions, the first one that has answers is read.

The export does not say which image stood left: names in alphabetical order (image1, image2; left, right) do. Files are
looked for beside the JSON file: `/data/local-files/?d=X` as X, `/data/upload/1/X` as upload/1/X. Nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dmpo_app.exchange.readers.pair import Reason
from dmpo_app.exchange.readers.reader import Facts, Judgement, Row

TIE, BOTH_BAD, SKIP = "tie", "both_bad", "skip"
_A = frozenset({"a", "left", "1", "first", "image_a", "image_1", "image1", "image_left", "left_image", "option_1"})
_B = frozenset({"b", "right", "2", "second", "image_b", "image_2", "image2", "image_right", "right_image", "option_2"})
_TIE = frozenset({"tie", "equal", "same", "draw", "both", "both_good", "no_preference", "no_difference", "similar"})
_BAD = frozenset({"both_bad", "neither", "none", "bad"})
_IMAGE = re.compile(r"\.(png|jpe?g|webp)$", re.IGNORECASE)
_PROMPTS = ("prompt", "caption", "text", "instruction", "images.prompt")


def answer_of(value: object, name_a: str, name_b: str) -> tuple[float | Reason, str | None]:
    """(wins of a, outcome where that cannot hold it) of a label, or of a ranking: [{"value": name, "rank": 1}, ...].

    `name_a` and `name_b`: what the images are called in the row.
    """
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        ranks = {str(one.get("value")): one.get("rank") for one in value}
        rank_a, rank_b = ranks.get(name_a), ranks.get(name_b)
        if not (isinstance(rank_a, int) and isinstance(rank_b, int)):
            return Reason.UNCLEAR_LABEL, None
        return (0.5 if rank_a == rank_b else float(rank_a < rank_b)), None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    said = re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_")
    for names, wins in (({_plain(name_a)}, 1.0), ({_plain(name_b)}, 0.0), (_A, 1.0), (_B, 0.0), (_TIE, 0.5)):
        if said in names:
            return wins, None
    return Reason.UNCLEAR_LABEL, BOTH_BAD if said in _BAD else None


def two_images(cells: Mapping[str, object]) -> tuple[str, str]:
    """The names of the two cells that hold images, in alphabetical order. Raises ValueError when there are not two."""
    names = sorted(name for name, cell in cells.items() if _is_image(cell))
    if len(names) != 2:
        raise ValueError(f"{len(names)} images, expected 2")
    return names[0], names[1]


def prompt_among(cells: Mapping[str, object], images: tuple[str, str]) -> object:
    """The cell that holds the prompt: the one that is called so, else the only other text. None: there is none."""
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


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


_RESPONSES, _USERS, _STATUS = ".responses", ".responses.users", ".responses.status"
_OWN = frozenset({"id", "status", "_server_id"})
_SUBMITTED = (None, "submitted", "ResponseStatus.submitted")


class Argilla:
    name = "argilla"
    description = "Argilla export (JSON or datasets): two image fields, a label or ranking question"

    def detect(self, columns: Collection[str]) -> bool:
        return {"fields", "responses"} <= set(columns) or any(column.endswith(_USERS) for column in columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        fields = row["fields"] if "fields" in row else _fields_of_columns(row)
        names = two_images(fields)
        prompt = prompt_among(fields, names)
        image_a, image_b = (fields[name] for name in names)
        answers = list(_answers(row))
        if not answers:
            yield Judgement(prompt, image_a, image_b, Reason.MISSING_LABEL)
        for user, value in answers:
            wins, outcome = answer_of(value, *names)
            yield Judgement(prompt, image_a, image_b, wins, facts=Facts(annotator=user, outcome=outcome))


def _fields_of_columns(row: Row) -> dict[str, object]:
    return {name: cell for name, cell in row.items() if name not in _OWN and "." not in name}


def _answers(row: Row) -> Iterator[tuple[object, object]]:
    """(user, value) of every answer to the first question that has some."""
    if "responses" in row:
        questions: Iterable[Iterable[Mapping[str, Any]]] = (row["responses"] or {}).values()
        for responses in questions:
            given = [one for one in responses if one.get("status") in _SUBMITTED]
            yield from ((one.get("user_id"), one["value"]) for one in given)
            if given:
                return
        return
    for column in row:
        if not column.endswith(_RESPONSES):
            continue
        values = row[column] or []
        question = column.removesuffix(_RESPONSES)
        users = row.get(question + _USERS) or [None] * len(values)
        statuses = row.get(question + _STATUS) or [None] * len(values)
        given_here = [one for one in zip(users, values, statuses, strict=True) if one[2] in _SUBMITTED]
        yield from ((user, value) for user, value, _ in given_here)
        if given_here:
            return


class LabelStudio:
    name = "label-studio"
    description = "Label Studio JSON export: data with two images, annotations"

    def detect(self, columns: Collection[str]) -> bool:
        return {"data", "annotations"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        data: Mapping[str, Any] = row["data"]
        names = two_images(data)
        prompt = prompt_among(data, names)
        image_a, image_b = (_local(data[name]) for name in names)
        given = [one for one in row["annotations"] if not one.get("was_cancelled")]
        if not given:
            yield Judgement(prompt, image_a, image_b, Reason.MISSING_LABEL)
        for one in given:
            wins, outcome = _answer(one["result"], names)
            who = one.get("completed_by")
            facts = Facts(
                annotator=who.get("id") or who.get("email") if isinstance(who, Mapping) else who,
                outcome=outcome,
                elapsed_ms=round(1000 * one["lead_time"]) if one.get("lead_time") else None,
                given_at=one.get("created_at"),
                a_on_left=True,
            )
            yield Judgement(prompt, image_a, image_b, wins, facts=facts)


def _answer(results: Iterable[Mapping[str, Any]], names: tuple[str, str]) -> tuple[float | Reason, str | None]:
    """A choice comes first: where both controls are there, it is what says that neither side is better."""
    by_kind = {one["type"]: one["value"] for one in results}
    if "choices" in by_kind:
        answer = answer_of(by_kind["choices"]["choices"], *names)
        if answer != (Reason.UNCLEAR_LABEL, None) or "pairwise" not in by_kind:
            return answer
    if "pairwise" in by_kind:
        return answer_of(by_kind["pairwise"]["selected"], *names)
    return Reason.MISSING_LABEL, None


def _local(cell: Any) -> object:
    if not isinstance(cell, str) or not cell.startswith("/data/"):
        return cell
    address = urlsplit(cell)
    if address.path.startswith("/data/local-files"):
        return parse_qs(address.query).get("d", [""])[0]
    return address.path.removeprefix("/data/")
