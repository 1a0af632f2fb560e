"""Sealed tokens, which the server alone can make, read and change.

Fernet: AES-128 in CBC mode under HMAC-SHA256, with a random part, so that two tokens for the same image seem unrelated.
The key lies in the home, so tokens stay good over a restart.
"""

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from dmpo_app.errors import ExpiredError, ForbiddenError, NotFoundError, NotInvitedError, SetupError
from dmpo_app.io import create_exclusively
from dmpo_app.store.store import SECRET_KEY_NAME

_SESSION = b"s:"
_IMAGE = b"i:"
_INVITE = b"v:"
_NOTE = b"n:"
_MAX_LENGTH = 512
"""The longest token that is decoded; the usual one has about 140 characters."""


class Sealer:
    """Seals session, image and invitation tokens and notes; none opens as another kind. Hashes identities."""

    def __init__(self, key: bytes) -> None:
        self._fernet = Fernet(key)
        # A key of its own, so that nothing computed with it says anything about the one that seals.
        self._identity_key = hmac.digest(key, b"dmpo studio: identities of annotators", hashlib.sha256)

    def seal_session(self, annotator_public_id: str) -> str:
        """Seal a session token, by which an annotator is recognised."""
        return self._seal(_SESSION + annotator_public_id.encode())

    def open_session(self, token: str) -> str:
        """The public id of a session token's annotator. Raises ForbiddenError for anything but such a token."""
        content = self._open(token, _SESSION)
        if content is None:
            raise ForbiddenError("this session token is not one of this studio; open a new session")
        return content.decode()

    def seal_image(self, image_id: int, expires_at: datetime) -> str:
        """Seal an image token, which shows one image until a time. It tells nothing about the image."""
        # All of one length: the longer number of a newer image would show in the length of its address.
        return self._seal(_IMAGE + b"%019d:%d" % (image_id, int(expires_at.timestamp())))

    def open_image(self, token: str, *, now: datetime) -> int:
        """The id of an image token's image. Raises NotFoundError for any other token, ExpiredError after its time."""
        content = self._open(token, _IMAGE)
        if content is None:
            raise NotFoundError("there is no such image")
        image_id, expires_at = map(int, content.split(b":"))
        if now >= datetime.fromtimestamp(expires_at, UTC):
            raise ExpiredError("the address of this image has expired; ask for the pair again")
        return image_id

    def seal_invite(self, public_id: str) -> str:
        """Seal an invitation token, which opens sessions as often as the invitation says."""
        return self._seal(_INVITE + public_id.encode())

    def open_invite(self, token: str) -> str:
        """The public id of an invitation token's invitation. Raises NotInvitedError for anything but such a token."""
        content = self._open(token, _INVITE)
        if content is None:
            raise NotInvitedError("this invitation is not one of this studio; ask for a new link")
        return content.decode()

    def seal_note(self, purpose: str, content: str, expires_at: datetime) -> str:
        """Seal a note of the studio to itself that travels by way of others until a time. No colon in a purpose."""
        return self._seal(_NOTE + f"{purpose}:{int(expires_at.timestamp())}:{content}".encode())

    def open_note(self, purpose: str, token: str, *, now: datetime) -> str | None:
        """The content of a note for that purpose; None for anything but such a note, and after its time."""
        content = self._open(token, _NOTE)
        if content is None:
            return None
        note_purpose, expires_at, text = content.decode().split(":", 2)
        return text if note_purpose == purpose and now.timestamp() < int(expires_at) else None

    def identity(self, provider: str, subject: str) -> str:
        """The identity of a person at a provider, as HMAC-SHA256 under a key of this home: 64 hex digits.

        It is the same each time; without the key nobody can tell whose it is, not even by trying names.
        """
        # The length keeps apart what would read alike when joined.
        message = f"{len(provider)}:{provider}{subject}".encode()
        return hmac.new(self._identity_key, message, hashlib.sha256).hexdigest()

    def _seal(self, content: bytes) -> str:
        return self._fernet.encrypt(content).decode().rstrip("=")

    def _open(self, token: str, kind: bytes) -> bytes | None:
        """The content of a token of this kind, or None."""
        if len(token) > _MAX_LENGTH or not token.isascii():
            return None
        sealed = token.encode() + b"=" * (-len(token) % 4)
        try:
            # Lenient decoding would take many spellings of one token; only the one that was handed out is good.
            if base64.urlsafe_b64encode(base64.urlsafe_b64decode(sealed)) != sealed:
                return None
            content = self._fernet.decrypt(sealed)
        except (binascii.Error, InvalidToken):
            return None
        return content.removeprefix(kind) if content.startswith(kind) else None


def load_or_create_key(home: Path) -> bytes:
    """Load the home's key, made on first use and readable by its owner only. Two processes at once get the same.

    Raises SetupError when the file holds no key, StorageFullError.
    """
    path = home / SECRET_KEY_NAME
    if not path.exists():
        create_exclusively(path, Fernet.generate_key(), mode=0o600)  # where another process was first its key stands
    key = path.read_bytes().strip()
    try:
        Fernet(key)
    except ValueError as error:
        raise SetupError(
            f"{path} does not hold a key; delete it and a new one is made (open sessions will have to start again)"
        ) from error
    return key
