"""Two folders of files of the same names, `winners` and `losers`, with the caption in a .txt file beside the winner."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from dmpo_app.exchange.readers.reader import Judgement, Row

WINNERS, LOSERS = "winners", "losers"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


class WinnerLoserFolders:
    name = "winner-loser-folders"
    description = "folders winners/ and losers/ of same-named images, captions in .txt files"

    def detect(self, columns: Collection[str]) -> bool:
        return {"winner", "loser", "caption"} <= set(columns)

    def judgements(self, row: Row) -> Iterable[Judgement]:
        yield Judgement(row["caption"], row["winner"], row["loser"], 1.0)


def is_winner_loser_folder(path: Path) -> bool:
    return (path / WINNERS).is_dir() and (path / LOSERS).is_dir()


def rows_of_folders(path: Path, start: int = 0) -> Iterator[Row]:
    """One row for every winner from the `start`-th on, by name; losers have the same name, or stem, as their winner."""
    losers = {loser.stem: loser for loser in sorted((path / LOSERS).iterdir()) if loser.suffix.lower() in _SUFFIXES}
    winners = sorted(file for file in (path / WINNERS).iterdir() if file.suffix.lower() in _SUFFIXES)
    for winner in winners[start:]:
        loser = losers.get(winner.stem)
        yield {
            "winner": str(winner.relative_to(path)),
            "loser": None if loser is None else str(loser.relative_to(path)),
            "caption": _caption(winner) or (None if loser is None else _caption(loser)),
        }


def _caption(image: Path) -> str | None:
    """A caption that cannot be read is none; the row is then counted as without prompt."""
    try:
        return image.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
