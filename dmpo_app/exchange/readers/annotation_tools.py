"""Argilla records with two image fields and a label or ranking question: its JSON export, or its `datasets` export.

In the JSON a record has `fields` and `responses`; in the other the fields are columns, and a question is the columns
QUESTION.responses and QUESTION.responses.users. Discarded and unsubmitted responses are no answers. Where there are
several questions, the first one that has answers is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from dmpo_app.exchange.readers.answers import answer_of, prompt_among, two_images
from dmpo_app.exchange.readers.pair import Reason
from dmpo_app.exchange.readers.reader import Facts, Judgement, Row

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
