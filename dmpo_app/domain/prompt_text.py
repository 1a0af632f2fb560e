"""What the text of a prompt is compared by. Pure functions of strings.

Two prompts are *twins* when they fold to the same text, and *near duplicates* when the words they are made of overlap
enough: the Jaccard similarity of their sets of words, |A ∩ B| / |A ∪ B|, 1 for twins.
"""

from __future__ import annotations

import re
import unicodedata

MAX_PROMPT = 1000
"""Characters of the longest prompt anywhere in the studio."""
MAX_TAG = 40

_ACCENTS = re.compile("[\u0300-\u036f]")
_ARTICLES = frozenset({"a", "an", "the"})
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def tidy(text: str) -> str:
    """The text as it is stored: composed characters (NFC), every run of white space one blank, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def has_control_characters(text: str) -> bool:
    """Whether it holds characters no prompt needs: controls but for white space, half characters, and marks that turn
    the direction of writing, which make a text look like another one."""
    return any(
        (unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r") or character in _DIRECTIONS
        for character in text
    )


def fold(text: str) -> str:
    """The text without what makes no difference: case, width, accents, punctuation, invisible characters.

    Never empty unless the text is: a text without a single word stands for itself.
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", plain)))
    return " ".join("".join(map(_letter, plain)).split()) or " ".join(text.casefold().split())


def words_of(folded: str) -> frozenset[str]:
    """The set of words a folded text is compared by: all but the English articles, unless there are no others."""
    words = frozenset(folded.split())
    return words - _ARTICLES or words


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity of two sets of words, 0 to 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def clean_tag(name: str) -> str:
    """A tag as it is stored: folded words joined by hyphens, at most `MAX_TAG` characters; empty for no word at all."""
    words = [word for word in fold(name).split() if word[0].isalnum()]
    return "-".join(words)[:MAX_TAG].rstrip("-")


def _letter(character: str) -> str:
    """A character as it counts for words: itself, nothing when it is invisible, or a blank."""
    if "\u3040" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff":
        return f" {character} "  # Chinese and Japanese have no spaces: each character stands for itself
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return character if character.isalnum() or category.startswith("M") else " "
