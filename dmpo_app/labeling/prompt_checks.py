"""Finds the near duplicates of a prompt among many, without comparing it with each.

Prefix filtering (Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search"): order all words, rare ones
first. Two sets of at least a similarity t share a word among the first n - ceil(t n) + 1 of each, n its size. So only
those words are indexed, and rare words have few prompts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from dmpo_app.domain.prompt_text import similarity, words_of

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
