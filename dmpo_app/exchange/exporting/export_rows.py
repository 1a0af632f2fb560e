"""What a format is: its columns, and the rows that a judged pair comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, Protocol

from dmpo_app.domain.image import ImageRef, PairSource
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Outcome
from dmpo_app.exchange.exporting.selection import Rows
from dmpo_app.exchange.exporting.verdict import Verdict, counted
from dmpo_app.store.voting.judgements import GivenVote, JudgedPair

Kind = Literal["string", "int64", "float64", "bool", "timestamp[ns]", "binary", "image"]
Row = Mapping[str, Any]
_MADE_HERE = frozenset((PairSource.STARTER.value, PairSource.POOL.value))
WINS: Mapping[Outcome, float] = {Outcome.A: 1.0, Outcome.B: 0.0, Outcome.TIE: 0.5}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `image` is what Hugging Face `datasets` shows as a picture: bytes and a name."""

    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True, slots=True)
class Context:
    """What formats are told beside the pair.

    name_of: the hashed name of an annotator by id. image: the PNG of that sha256. image_file: puts it beside the rows
    and says where; both raise NotFound, both are None without images. rows: one for each vote or each pair.
    rows_of_prompt: how many rows the whole export has for a prompt.
    """

    base: BaseModelRef
    name_of: Callable[[int], str]
    image: Callable[[str], bytes] | None
    image_file: Callable[[str], str] | None
    rows: Rows
    comments: bool
    rows_of_prompt: Mapping[str, int]

    @property
    def with_images(self) -> bool:
        return self.image is not None

    def base_model(self, pair: JudgedPair, image: ImageRef) -> str:
        """The base model that made an image; of an imported one, whatever model its source names."""
        if pair.source.value in _MADE_HERE:
            return model_name(self.base)
        origin = pair.origin_of(image)
        named = origin.get("model") or origin.get("base_model")
        return named if isinstance(named, str) else "unknown"

    def model(self, pair: JudgedPair, image: ImageRef) -> str:
        """The model that made an image: the base model's name, and the version where there is one."""
        made_here = pair.source.value in _MADE_HERE
        version = image.provenance.adapter_version if made_here else pair.origin_of(image).get("adapter_version")
        name = self.base_model(pair, image)
        return f"{name}@dmpo-{version}" if isinstance(version, int) and version > 0 else name


class Format(Protocol):
    """One format; stateless."""

    name: str
    description: str
    suffix: str
    """.parquet, .jsonl or .csv."""
    default_rows: Rows
    """What a row is unless told otherwise. Formats of raw votes know no other."""
    is_raw: bool
    """Rows are votes as they were given, those on gold pairs and repeats too; prompts are not split."""
    default_images: bool
    holds_ties: bool
    counts_prompts: bool
    """Rows say how many rows there are for their prompt, so the votes are gone through once more before."""

    def columns(self, context: Context) -> Sequence[Column]: ...

    def row(self, pair: JudgedPair, judgement: Judgement, context: Context) -> Row:
        """One row; raises NotFound when an image is not in the store."""
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a row is about: one vote, or the verdict of all `votes` on the pair."""

    verdict: Verdict
    votes: Sequence[GivenVote]

    @property
    def outcome(self) -> Outcome:
        return self.verdict.outcome


def model_name(base: BaseModelRef) -> str:
    """The base model as it is called elsewhere: its hub id, of a folder the name alone."""
    path = PurePath(base.source)
    is_folder = path.is_absolute() or base.source.startswith((".", "~")) or len(path.parts) > 2
    return path.name if is_folder else base.source


def judgements_of(pair: JudgedPair, verdict: Verdict, rows: Rows) -> Iterator[Judgement]:
    """The preferences on a pair, a vote or a pair each; those for neither image are none."""
    if rows == "votes":
        for vote in counted(pair.votes):
            if vote.outcome in WINS:
                yield Judgement(Verdict(vote.outcome, 1.0, {vote.outcome: 1}), [vote])
    elif verdict.outcome in WINS:
        yield Judgement(verdict, counted(pair.votes))
