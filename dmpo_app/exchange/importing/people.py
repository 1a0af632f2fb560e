"""Who gave an imported answer, without keeping what they are called where it comes from."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.labeling.quality.names import hashed_names
from dmpo_app.labeling.tokens import load_or_create_key
from dmpo_app.store import Store

_PURPOSE = b"imported annotator:"


@dataclass(frozen=True, slots=True)
class People:
    """The annotators of one source. The same name of the same source is the same annotator in every import.

    Of a name only a hash under the home's key is kept. Answers without one are all of one annotator, the source.
    `own`: annotators of this home by the name its exports call them, so that its own votes come back to them.
    """

    source: str
    key: bytes
    own: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, base: BaseModelRef, source: str, *, may_be_own: bool) -> People:
        """`may_be_own`: whether names may be those that this home's exports use."""
        key = load_or_create_key(store.home)
        public_ids = store.vote_records.public_ids(base) if may_be_own else {}
        name_of = hashed_names(key, public_ids)
        return cls(source, key, {name_of(annotator_id): annotator_id for annotator_id in public_ids})

    def find(self, name: object) -> tuple[int | None, str, str]:
        """(id of an annotator of this home, identity, handle) of whoever is called so at the source."""
        text = "" if name is None else str(name)
        message = _PURPOSE + f"{self.source}\0{text}".encode("utf-8", "surrogatepass")
        identity = hmac.new(self.key, message, hashlib.sha256).hexdigest()
        handle = self.source if not text else f"{self.source} {identity[:6]}"
        return self.own.get(text), identity, handle
