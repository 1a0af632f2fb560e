"""Checks of what people type: names and comments, prompts on the block list, near duplicates.

Prefix filtering (Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search"): order all words, rare ones
first. Two sets of at least a similarity t share a word among the first n - ceil(t n) + 1 of each, n its size. So only
those words are indexed, and rare words have few prompts.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from dmpo_app.domain.prompt import fold, similarity, words_of
from dmpo_app.errors import BadInput, SetupProblem

MAX_HANDLE = 64
MAX_COMMENT = 500


def clean_handle(handle: str) -> str:
    """A name as it is stored: NFC, inner whitespace single, 1 to 64 characters. Raises BadInput for what is no name."""
    name = " ".join(unicodedata.normalize("NFC", _whole(handle, "handle")).split())
    if not 1 <= len(name) <= MAX_HANDLE:
        raise BadInput(f"a handle has 1 to {MAX_HANDLE} characters, not {len(name)}")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise BadInput("the handle holds a control character")
    return name


def clean_words(words: str | None, what: str) -> str | None:
    """A remark as it is stored: NFC, without whitespace around it, None when nothing is left of it.

    Raises BadInput, calling it `what`, for more than MAX_COMMENT characters and for control characters.
    """
    if words is None:
        return None
    text = unicodedata.normalize("NFC", _whole(words, what)).replace("\r\n", "\n").strip()
    if len(text) > MAX_COMMENT:
        raise BadInput(f"a {what} has up to {MAX_COMMENT} characters, not {len(text)}")
    if any(unicodedata.category(character) == "Cc" for character in text if character not in "\n\t"):
        raise BadInput(f"the {what} holds a control character")
    return text or None


def _whole(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"the {what} holds half a character (a lone surrogate)") from None
    return text


class BlockList:
    """Phrases, matched as whole words of the folded text: case, accents and punctuation make no difference."""

    def __init__(self, phrases: list[str]) -> None:
        self._phrases = [f" {folded} " for folded in map(fold, phrases) if folded]

    @classmethod
    def read(cls, path: Path | None) -> BlockList:
        """A text file, one phrase a line; blank lines and lines starting with # are left out. None: nothing is blocked.

        Raises SetupProblem when it cannot be read: a campaign that asked for a block list does not run without it.
        """
        if path is None:
            return cls([])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupProblem(
                f"the list of blocked words {path} cannot be read: {error}; expected UTF-8 text, one word a line. "
                "It is DMPO_LABELING__BLOCKED_WORDS"
            ) from error
        return cls([line for line in lines if line.strip() and not line.startswith("#")])

    def blocks(self, folded: str) -> bool:
        """Whether a folded text holds one of them."""
        text = f" {folded} "
        return any(phrase in text for phrase in self._phrases)


K = TypeVar("K")

_ROUNDING = 1e-9


class NearDuplicates(Generic[K]):
    """An index over prompts by key. Exact: `of` finds what a comparison with each would find.

    `threshold`: least Jaccard similarity of the sets of words, above 0, at most 1.
    """

    def __init__(self, prompts: Iterable[tuple[K, str]], threshold: float) -> None:
        """`prompts`: keys with folded texts."""
        self._threshold = threshold
        self._entries = [(key, words_of(folded)) for key, folded in prompts]
        self._frequency = Counter(word for _, words in self._entries for word in words)
        self._by_word: dict[str, list[int]] = {}
        for number, (_, words) in enumerate(self._entries):
            for word in self._prefix(words):
                self._by_word.setdefault(word, []).append(number)

    def of(self, folded: str) -> Iterator[K]:
        """The keys of all prompts that are near duplicates of this one, twins among them, in the order of the index."""
        words = words_of(folded)
        found = {number for word in self._prefix(words) for number in self._by_word.get(word, ())}
        for number in sorted(found):
            key, other = self._entries[number]
            if similarity(words, other) >= self._threshold - _ROUNDING:
                yield key

    def _prefix(self, words: frozenset[str]) -> list[str]:
        ordered = sorted(words, key=lambda word: (self._frequency[word], word))
        return ordered[: len(words) - math.ceil(self._threshold * len(words) - _ROUNDING) + 1]
