"""What people agree to before they judge anything, and whether they have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dmpo_app.domain.campaign import Agreement
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import Conflict, ConsentNeeded, NotFound, SetupProblem
from dmpo_app.settings import LabelingSettings
from dmpo_app.store import Store

MAX_TEXT = 50_000
_FILE_ENDINGS = (".txt", ".md")
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class ConsentText:
    """A text to agree to. `sha256` is of it as UTF-8."""

    text: str
    version: str
    sha256: str


class Consent:
    """The campaign's text and the agreements to it. Without a text nobody has to agree to anything."""

    def __init__(self, store: Store, text: ConsentText | None) -> None:
        self.text = text
        self._store = store
        # An agreement is for good, so it is looked up once; lru_cache keeps no refusals.
        self._known = lru_cache(maxsize=_REMEMBERED)(self._look_up)

    def require(self, annotator: Annotator) -> None:
        """Raises ConsentNeeded while the annotator has not agreed to the present text."""
        if self.text is not None:
            self._known(annotator.id, self.text.sha256, self.text.version)

    def agreement(self, annotator: Annotator) -> Agreement | None:
        """The annotator's agreement to the present text, if there is one."""
        if self.text is None:
            return None
        return self._store.consents.find(annotator.id, self.text.sha256, self.text.version)

    def agree(self, annotator: Annotator, text_sha256: str) -> Agreement:
        """Record that the annotator agrees to the text they were shown, named by its hash.

        Raises Conflict when it is not the present one, NotFound when there is none to agree to.
        """
        if self.text is None:
            raise NotFound("there is nothing to agree to here")
        if text_sha256 != self.text.sha256:
            raise Conflict("the text to agree to has changed; read it again")
        return self._store.consents.agree(annotator.id, self.text.text, self.text.version)

    def _look_up(self, annotator_id: int, text_sha256: str, version: str) -> Agreement:
        found = self._store.consents.find(annotator_id, text_sha256, version)
        if found is None:
            raise ConsentNeeded("read and agree to what is collected first: GET and POST /api/v1/consent")
        return found


def read_consent(settings: LabelingSettings) -> ConsentText | None:
    """The text that the settings name or hold. Raises SetupProblem for a file that cannot be read or an empty text."""
    given = settings.consent
    if given is None:
        return None
    text = given
    if "\n" not in given and given.lower().endswith(_FILE_ENDINGS):
        try:
            text = Path(given).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SetupProblem(
                f"the text to agree to, DMPO_LABELING__CONSENT={given}, cannot be read: {error}"
            ) from error
    text = text.strip()
    if not 1 <= len(text) <= MAX_TEXT:
        raise SetupProblem(f"the text to agree to has {len(text)} characters; expected 1 to {MAX_TEXT}")
    return ConsentText(text, settings.consent_version, hashlib.sha256(text.encode()).hexdigest())
