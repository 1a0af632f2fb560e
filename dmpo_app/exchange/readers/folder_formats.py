"""Formats that come as folders of images: winners beside losers, and HPDv2.

HPDv2 (Wu et al. 2023, arXiv 2306.09341) is JSON beside folders of images. Its train.json has two images a row under
`file_path` and says by `human_preference` which one was preferred. test.json has several under `image_path` and `rank`,
a lower rank being better: every two of them are a pair. The consensus of its annotators counts as one vote; it is not
the same as that many people agreeing on each pair.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from dmpo_app.exchange.readers.reader import ImageFolder, LeftOutReason, Row, RowPair, has_columns, wins_from_scores
from dmpo_app.exchange.readers.source import Bookmark, CountedRows, RowStream, fingerprint_of_files

WINNERS, LOSERS = "winners", "losers"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


class WinnerLoserReader:
    name = "winner-loser-folders"
    description = "folders winners/ and losers/ of same-named images, captions in .txt files"
    columns = (frozenset({"winner", "loser", "caption"}),)
    extras: frozenset[str] | None = frozenset()

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        yield RowPair(row["caption"], row["winner"], row["loser"], 1.0)


def is_winner_loser_folder(path: Path) -> bool:
    """True for a folder that holds the two folders `winners` and `losers`."""
    return (path / WINNERS).is_dir() and (path / LOSERS).is_dir()


def read_folder_rows(path: Path, start: int = 0) -> Iterator[Row]:
    """Read a row for every winner from the `start`-th on, by name; losers have the name, or stem, of their winner."""
    losers = {loser.stem: loser for loser in sorted((path / LOSERS).iterdir()) if loser.suffix.lower() in _SUFFIXES}
    winners = sorted(file for file in (path / WINNERS).iterdir() if file.suffix.lower() in _SUFFIXES)
    for winner in winners[start:]:
        loser = losers.get(winner.stem)
        yield {
            "winner": str(winner.relative_to(path)),
            "loser": None if loser is None else str(loser.relative_to(path)),
            "caption": _read_caption(winner) or (None if loser is None else _read_caption(loser)),
        }


def _read_caption(image: Path) -> str | None:
    """Read a caption; None for one that cannot be read: the row is then counted as without prompt."""
    try:
        return image.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


class HPDv2Reader:
    name = "hpdv2"
    description = "HPDv2: train.json (file_path, human_preference) and test.json (image_path, rank)"
    columns = (
        frozenset({"prompt", "file_path", "human_preference"}),
        frozenset({"prompt", "image_path", "rank"}),
    )
    extras: frozenset[str] | None = frozenset()

    def detect(self, columns: Collection[str]) -> bool:
        return has_columns(self, columns)

    def read_pairs(self, row: Row) -> Iterable[RowPair]:
        if "human_preference" in row:
            path_a, path_b = row["file_path"]
            yield RowPair(row["prompt"], path_a, path_b, _preference(row["human_preference"]))
            return
        ranks, paths = row["rank"], row["image_path"]
        if not isinstance(paths, Sequence) or isinstance(paths, str):
            raise TypeError("image_path is a list of paths")
        if ranks is None:
            ranks = [None] * len(paths)
        for (path_a, rank_a), (path_b, rank_b) in combinations(zip(paths, ranks, strict=True), 2):
            yield RowPair(row["prompt"], path_a, path_b, _wins_from_ranks(rank_a, rank_b))


def _preference(labels: Any) -> float | LeftOutReason:
    if not labels:
        return LeftOutReason.MISSING_LABEL
    label_a, label_b = labels
    return wins_from_scores(label_a, label_b)


def _wins_from_ranks(rank_a: int | None, rank_b: int | None) -> float | LeftOutReason:
    if rank_a is None or rank_b is None:
        return LeftOutReason.MISSING_LABEL
    return 0.5 if rank_a == rank_b else float(rank_a < rank_b)


class FoldersSource:
    """The PreferenceSource of two folders, winners and losers."""

    columns: Sequence[str] = ("winner", "loser", "caption")

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.folder = ImageFolder(path)
        self.fingerprint = fingerprint_of_files(sorted(file for file in path.rglob("*") if file.is_file()), path)
        self._path = path

    def open(self, bookmark: Bookmark | None = None, _columns: Collection[str] | None = None, /) -> RowStream:
        start = 0 if bookmark is None else int(bookmark["position"])
        return CountedRows(read_folder_rows(self._path, start), start)
