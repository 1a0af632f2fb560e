"""The exception tree: every error that the studio raises on purpose.

    StudioError
    ├── BadInputError              invalid input from a caller; the message is safe to show
    │   ├── NotFoundError          no such thing, or not of this lineage
    │   │   └── DamagedFileError   a stored file is missing, or is not what its name says
    │   ├── ForbiddenError         it exists and belongs to somebody else
    │   ├── NotInvitedError        a session needs a valid invitation
    │   ├── LoginRequiredError     a session needs somebody who signed in
    │   ├── LoginRefusedError      sign-in failed: forged, replayed, late, or the provider says no
    │   ├── ConsentRequiredError   the consent text has not been agreed to
    │   ├── ConflictError          it contradicts what is recorded already
    │   ├── ExpiredError           it was valid once
    │   └── RateLimitError         more than one person may do; try again another day
    ├── BusyError                  a bounded queue is full; try again later
    │   └── GpuRefusedError        no GPU time is available now; says why, and for whom there is some
    ├── GpuAbortedError            the process with the GPU ended in the middle; what it had saved stands
    ├── NotReadyError              the model is still loading
    ├── SetupError                 the machine or the settings do not fit; says what to do
    │   ├── UnsafeSQLiteError
    │   ├── HomeLockedError
    │   ├── ModelUnavailableError
    │   ├── UnknownFamilyError
    │   └── BackupDamagedError     no snapshot of it is whole
    ├── AdapterError               an adapter that must not reach the live model
    │   ├── AdapterCorruptError
    │   └── AdapterMismatchError
    ├── StorageFullError           the disk took no more; nothing was acknowledged
    ├── SystemExhaustedError       the system could not serve this now: open files, memory, a disk out of reach
    ├── BackupUnreachableError     votes are refused: the backup is out of reach, or another's by now
    ├── LeaseLostError             another trainer holds the lineage now
    ├── PeerLostError              another process of a distributed round is gone; the round goes on when they are back
    └── RoundFailedError           training cannot go on; carries the reason shown on the page

Messages say what, which, what was expected and the likely cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager

UNEXPECTED_MESSAGE = "Something went wrong on our side; it has been logged."
"""The message that people see for an error that is none of these."""


class StudioError(Exception):
    """Base of everything raised on purpose. `str(error)` is fit to be shown to a person."""


class BadInputError(StudioError):
    """Invalid input from a caller."""


class NotFoundError(BadInputError):
    """A missing object, or one that is not of this base model's lineage."""


class DamagedFileError(NotFoundError):
    """A stored file that is missing, or whose content does not match its name.

    `path`: below the home. The web answers a sentence of its own: an image's address is to say nothing of its hash.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class ForbiddenError(BadInputError):
    """Access to an object that belongs to somebody else."""


class NotInvitedError(BadInputError):
    """A missing, unknown, expired or used-up invitation, where a session needs one."""


class LoginRequiredError(BadInputError):
    """A session without sign-in, where only people who signed in take part."""


class LoginRefusedError(BadInputError):
    """A failed sign-in: forged, replayed, too late, or refused by the provider."""


class ConsentRequiredError(BadInputError):
    """Missing consent: the annotator has not agreed to what is collected and for what."""


class ConflictError(BadInputError):
    """A request that contradicts what is recorded already."""


class ExpiredError(BadInputError):
    """An expired token, address or assignment; ask for a new one."""


class RateLimitError(BadInputError):
    """A rate limit was exceeded; nothing was done."""


class BusyError(StudioError):
    """A bounded queue is full; nothing was done, try again later."""


class GpuRefusedError(BusyError):
    """No GPU time is available: a quota is used up, or no GPU is free. Nothing was done."""


class GpuAbortedError(StudioError):
    """The process with the GPU was ended in the middle; whatever it had saved by then stands, nothing else does."""


class NotReadyError(StudioError):
    """The model is still loading, or could not be loaded."""


class SetupError(StudioError):
    """The machine or the settings do not fit; the message says what to do."""


class UnsafeSQLiteError(SetupError):
    """The SQLite library carries the WAL-reset corruption bug."""


class HomeLockedError(SetupError):
    """Another studio serves this home."""


class ModelUnavailableError(SetupError):
    """The base model is missing, incomplete, unreachable or too large."""


class UnknownFamilyError(SetupError):
    """The base model is of an architecture this version does not train."""


class BackupDamagedError(SetupError):
    """A backup holds snapshots and none of them is whole."""


class AdapterError(StudioError):
    """An adapter that must not reach the live model."""


class AdapterCorruptError(AdapterError):
    """An adapter whose hash, format or values are wrong."""


class AdapterMismatchError(AdapterError):
    """An adapter whose tensors do not fit the live model."""


class StorageFullError(StudioError):
    """The disk took no more; what was being written is not acknowledged."""


class SystemExhaustedError(StudioError):
    """The system could not serve a request now: too many open files, too little memory, a disk that does not answer.

    Such a reason passes, and says nothing about what was asked for; trying again is right.
    """


class BackupUnreachableError(StudioError):
    """The storage of the backup is out of reach, or another studio writes to it by now."""


class LeaseLostError(StudioError):
    """The trainer's lease was lost: another trainer holds this lineage now; whoever gets this stops writing."""


class PeerLostError(StudioError):
    """A peer process of distributed training failed or is gone; the round is as its checkpoint has it."""


class RoundFailedError(StudioError):
    """Training cannot go on; the message is the reason shown on the page."""


def hub_http_errors() -> tuple[type[Exception], ...]:
    """HTTP errors of the client: its own and, among the bases, that of the library beneath. Imports the client.

    The library is httpx under huggingface_hub 1, httpx2 under 2.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception))
    return tuple(kind for kind in bases if kind.__name__.endswith("HTTPError"))


def hub_client_errors() -> tuple[type[Exception], ...]:
    """Errors of the client when the Hub is out of reach, or refuses a name, a token or content."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    return (*hub_http_errors(), HFValidationError, LocalTokenNotFoundError, OSError)


@contextmanager
def translate_push_errors(repo_id: str) -> Iterator[None]:
    """Translate the client's errors inside to a StudioError that says what to check."""
    try:
        yield
    except hub_client_errors() as error:
        raise StudioError(
            f"{repo_id} could not be pushed to ({type(error).__name__}: {error}); is the name right, the network up, "
            "and a token that may write set (HF_TOKEN, or `hf auth login`)?"
        ) from error
