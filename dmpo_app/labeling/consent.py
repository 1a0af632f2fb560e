"""Consent: the text that people agree to before their first vote, and the check that they have."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dmpo_app.domain.campaign import ConsentAgreement
from dmpo_app.domain.vote import Annotator
from dmpo_app.errors import ConflictError, ConsentRequiredError, NotFoundError, SetupError
from dmpo_app.io import sha256_hex
from dmpo_app.settings import LabelingSettings
from dmpo_app.store import Store

MAX_TEXT = 50_000
_FILE_ENDINGS = (".txt", ".md")
_CACHE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class ConsentText:
    """A consent text. `sha256` is of it as UTF-8."""

    text: str
    version: str
    sha256: str


class Consent:
    """The campaign's consent text and the agreements to it. Without a text nobody has to agree to anything."""

    def __init__(self, store: Store, text: ConsentText | None) -> None:
        self.text = text
        self._store = store
        # An agreement is for good, so it is looked up once; lru_cache keeps no refusals.
        self._cached_agreement = lru_cache(maxsize=_CACHE_SIZE)(self._look_up)

    def require(self, annotator: Annotator) -> None:
        """Raise ConsentRequiredError while the annotator has not agreed to the present text."""
        if self.text is not None:
            self._cached_agreement(annotator.id, self.text.sha256, self.text.version)

    def agreement(self, annotator: Annotator) -> ConsentAgreement | None:
        """The annotator's agreement to the present text, if there is one."""
        if self.text is None:
            return None
        return self._store.consents.find(annotator.id, self.text.sha256, self.text.version)

    def agree(self, annotator: Annotator, text_sha256: str) -> ConsentAgreement:
        """Record that the annotator agrees to the text they were shown, named by its hash.

        Raises ConflictError when it is not the present one, NotFoundError when there is none to agree to.
        """
        if self.text is None:
            raise NotFoundError("there is nothing to agree to here")
        if text_sha256 != self.text.sha256:
            raise ConflictError("the text to agree to has changed; read it again")
        return self._store.consents.agree(annotator.id, self.text.text, self.text.version)

    def _look_up(self, annotator_id: int, text_sha256: str, version: str) -> ConsentAgreement:
        agreement = self._store.consents.find(annotator_id, text_sha256, version)
        if agreement is None:
            raise ConsentRequiredError("read and agree to what is collected first: GET and POST /api/v1/consent")
        return agreement


def read_consent(settings: LabelingSettings) -> ConsentText | None:
    """Read the consent text of the settings. Raises SetupError for an unreadable file or an empty text."""
    text_or_path = settings.consent
    if text_or_path is None:
        return None
    text = text_or_path
    if "\n" not in text_or_path and text_or_path.lower().endswith(_FILE_ENDINGS):
        try:
            text = Path(text_or_path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(
                f"the text to agree to, DMPO_LABELING__CONSENT={text_or_path}, cannot be read: {error}"
            ) from error
    text = text.strip()
    if not 1 <= len(text) <= MAX_TEXT:
        raise SetupError(f"the text to agree to has {len(text)} characters; expected 1 to {MAX_TEXT}")
    return ConsentText(text, settings.consent_version, sha256_hex(text.encode()))
