"""Checks of what people type: names and comments, prompts on the block list, near duplicates.

Near duplicates are found by prefix filtering (Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search"):
order all words, rare ones first. Two sets of at least a similarity t share a word among the first n - ceil(t n) + 1 of
each, n its size. So only those words are indexed, and rare words have few prompts.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, Self, TypeVar

from dmpo_app.domain.limits import MAX_HANDLE
from dmpo_app.domain.prompt import fold, jaccard_similarity, word_set
from dmpo_app.errors import BadInputError, SetupError

MAX_COMMENT = 500


def clean_handle(handle: str) -> str:
    """Validate a handle: NFC, inner whitespace single, 1 to MAX_HANDLE characters.

    Raises BadInputError for what is no name.
    """
    name = " ".join(unicodedata.normalize("NFC", _require_encodable(handle, "handle")).split())
    if not 1 <= len(name) <= MAX_HANDLE:
        raise BadInputError(f"a handle has 1 to {MAX_HANDLE} characters, not {len(name)}")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise BadInputError("the handle holds a control character")
    return name


def clean_remark(remark: str | None, noun: str) -> str | None:
    """Validate a comment or report: NFC, without whitespace around it, None when nothing is left of it.

    Raises BadInputError, calling it `noun`, for more than MAX_COMMENT characters and for control characters.
    """
    if remark is None:
        return None
    text = (
        unicodedata.normalize("NFC", _require_encodable(remark, noun)).replace("\r\n", "\n").replace("\r", "\n").strip()
    )
    if len(text) > MAX_COMMENT:
        raise BadInputError(f"a {noun} has up to {MAX_COMMENT} characters, not {len(text)}")
    if any(unicodedata.category(character) == "Cc" for character in text if character not in "\n\t"):
        raise BadInputError(f"the {noun} holds a control character")
    return text or None


def _require_encodable(text: str, noun: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInputError(f"the {noun} holds half a character (a lone surrogate)") from None
    return text


class BlockList:
    """Blocked phrases, matched as whole words of the folded text: case, accents and punctuation make no difference."""

    def __init__(self, phrases: list[str]) -> None:
        self._phrases = [f" {folded} " for folded in map(fold, phrases) if folded]

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Read a text file, one phrase a line, without blank lines and lines starting with #. None: nothing is blocked.

        Raises SetupError when it cannot be read: a campaign that asked for a block list does not run without it.
        """
        if path is None:
            return cls([])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(
                f"the list of blocked words {path} cannot be read: {error}; expected UTF-8 text, one word a line. "
                "It is DMPO_LABELING__BLOCKED_WORDS"
            ) from error
        return cls([line for line in lines if line.strip() and not line.startswith("#")])

    def blocks(self, folded: str) -> bool:
        """True for a folded text that holds a blocked phrase."""
        text = f" {folded} "
        return any(phrase in text for phrase in self._phrases)


K = TypeVar("K")

_ROUNDING = 1e-9


class NearDuplicateIndex(Generic[K]):
    """An index over prompts by key. Exact: `find` finds what a comparison with each would find.

    `threshold`: least Jaccard similarity of the sets of words, above 0, at most 1.
    """

    def __init__(self, prompts: Iterable[tuple[K, str]], threshold: float) -> None:
        """Index prompts: keys with folded texts."""
        self._threshold = threshold
        self._entries = [(key, word_set(folded)) for key, folded in prompts]
        self._frequency = Counter(word for _, words in self._entries for word in words)
        self._by_word: dict[str, list[int]] = {}
        for number, (_, words) in enumerate(self._entries):
            for word in self._prefix(words):
                self._by_word.setdefault(word, []).append(number)

    def find(self, folded: str) -> Iterator[K]:
        """Find the keys of all near duplicates of a prompt, twins among them, in the order of the index."""
        words = word_set(folded)
        candidates = {number for word in self._prefix(words) for number in self._by_word.get(word, ())}
        for number in sorted(candidates):
            key, other = self._entries[number]
            if jaccard_similarity(words, other) >= self._threshold - _ROUNDING:
                yield key

    def _prefix(self, words: frozenset[str]) -> list[str]:
        ordered = sorted(words, key=lambda word: (self._frequency[word], word))
        return ordered[: len(words) - math.ceil(self._threshold * len(words) - _ROUNDING) + 1]
