"""What annotators are called where others see it: a keyed hash, the same in all reports of one home and in no other."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping

_PURPOSE = b"quality report:"
_LENGTH = 12


def hashed_names(key: bytes, public_ids: Mapping[int, str]) -> Callable[[int], str]:
    """The name of an annotator by internal id: 12 hexadecimal digits of HMAC-SHA256 under the home's key.

    Without the key nobody can tell which annotator it is, not even one who knows all public ids.
    """

    def name_of(annotator_id: int) -> str:
        public_id = public_ids[annotator_id]
        return hmac.new(key, _PURPOSE + public_id.encode(), hashlib.sha256).hexdigest()[:_LENGTH]

    return name_of
