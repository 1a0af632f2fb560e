"""What people write, as it is stored: handles, comments and reports. Plain text; nothing of it is ever markup."""

from __future__ import annotations

import unicodedata

from dmpo_app.errors import BadInput

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
