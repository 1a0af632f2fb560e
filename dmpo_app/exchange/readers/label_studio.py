"""Label Studio's JSON export of a project with two images and a `Pairwise` or `Choices` control.

The export does not say which image stood left: names in alphabetical order (image1, image2; left, right) do. Files are
looked for beside the JSON file: `/data/local-files/?d=X` as X, `/data/upload/1/X` as upload/1/X. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dmpo_app.exchange.readers.answers import answer_of, prompt_among, two_images
from dmpo_app.exchange.readers.pair import Reason
from dmpo_app.exchange.readers.reader import Facts, Judgement, Row


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
