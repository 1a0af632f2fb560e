"""Every error the studio raises on purpose.

    StudioError
    ├── BadInput                what a caller sent is refused; the message is safe to show
    │   ├── NotFound            no such thing, or not of this lineage
    │   ├── NotYours            it exists and belongs to somebody else
    │   ├── NotInvited          a session needs an invitation, and this is none that is good
    │   ├── LoginNeeded         a session needs somebody who signed in
    │   ├── LoginRefused        signing in did not work: forged, replayed, late, or the provider says no
    │   ├── ConsentNeeded       what is collected has not been agreed to
    │   ├── Conflict            it contradicts what is recorded already
    │   ├── Expired             it was good once
    │   └── TooMany             more than one person may do; try again another day
    ├── Busy                    a bounded queue is full; try again later
    │   └── GpuRefused          no GPU time is to be had now; says why, and for whom there is some
    ├── GpuAborted              the process with the GPU ended in the middle; what it had saved stands
    ├── NotReady                the model is still loading
    ├── SetupProblem            the machine or the settings do not fit; says what to do
    │   ├── UnsafeSQLite
    │   ├── HomeInUse
    │   ├── ModelUnavailable
    │   ├── UnknownFamily
    │   └── BackupDamaged       no snapshot of it is whole
    ├── AdapterProblem          an adapter that must not reach the live model
    │   ├── AdapterCorrupt
    │   └── AdapterMismatch
    ├── StorageFull             the disk took no more; nothing was acknowledged
    ├── BackupUnreachable       votes are refused: the storage that keeps them is out of reach, or another's by now
    ├── LeaseLost               another trainer holds the lineage now
    ├── PeerLost                another process of a round in several is gone; the round goes on when they are back
    └── RoundFailed             training cannot go on; carries the reason shown on the page

Messages say what, which, what was expected and the likely cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

UNEXPECTED = "Something went wrong on our side; it has been logged."
"""All that people are told of an error that is none of these."""


class StudioError(Exception):
    """Base of everything raised on purpose. `str(error)` is fit to be shown to a person."""


class BadInput(StudioError):
    """What a caller sent is refused."""


class NotFound(BadInput):
    """No such thing, or not one of this base model's lineage."""


class NotYours(BadInput):
    """It exists and belongs to somebody else."""


class NotInvited(BadInput):
    """A session needs an invitation, and what was given is none, has expired or is used up."""


class LoginNeeded(BadInput):
    """Only those who signed in take part here."""


class LoginRefused(BadInput):
    """A way of signing in that did not end as it began: forged, replayed, too late, or refused by the provider."""


class ConsentNeeded(BadInput):
    """The annotator has not agreed to what is collected and for what."""


class Conflict(BadInput):
    """It contradicts what is recorded already."""


class Expired(BadInput):
    """It was good once; ask for a new one."""


class TooMany(BadInput):
    """More than one person may do in a time; nothing was done."""


class Busy(StudioError):
    """A bounded queue is full; nothing was done, try again later."""


class GpuRefused(Busy):
    """No GPU time is to be had: a quota is used up, or no GPU is free. Nothing was done."""


class GpuAborted(StudioError):
    """The process with the GPU was ended in the middle; whatever it had saved by then stands, nothing else does."""


class NotReady(StudioError):
    """The model is still loading, or could not be loaded."""


class SetupProblem(StudioError):
    """The machine or the settings do not fit; the message says what to do."""


class UnsafeSQLite(SetupProblem):
    """The SQLite library carries the WAL-reset corruption bug."""


class HomeInUse(SetupProblem):
    """Another studio serves this home."""


class ModelUnavailable(SetupProblem):
    """The base model is missing, incomplete, unreachable or too large."""


class UnknownFamily(SetupProblem):
    """The base model is of an architecture this version does not train."""


class BackupDamaged(SetupProblem):
    """A backup holds snapshots and none of them is whole."""


class AdapterProblem(StudioError):
    """An adapter that must not reach the live model."""


class AdapterCorrupt(AdapterProblem):
    """Hash, format or values are wrong."""


class AdapterMismatch(AdapterProblem):
    """The tensors do not fit the live model."""


class StorageFull(StudioError):
    """The disk took no more; what was being written is not acknowledged."""


class BackupUnreachable(StudioError):
    """The storage of the backup is out of reach, or another studio writes to it by now."""


class LeaseLost(StudioError):
    """Another trainer holds this lineage now; whoever gets this stops writing."""


class PeerLost(StudioError):
    """Another of the processes that train together failed or is gone; the round is as its checkpoint has it."""


class RoundFailed(StudioError):
    """Training cannot go on; the message is the reason shown on the page."""


def hub_http_errors() -> tuple[type[Exception], ...]:
    """The client's own HTTP error and, among its bases, that of the library beneath: httpx under huggingface_hub 1,
    httpx2 under 2. Imports the client."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception))
    return tuple(kind for kind in bases if kind.__name__.endswith("HTTPError"))


def hub_refusals() -> tuple[type[Exception], ...]:
    """What its client raises when the Hub is out of reach, or takes neither name, token nor content."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    return (*hub_http_errors(), HFValidationError, LocalTokenNotFoundError, OSError)


@contextmanager
def pushing_to(repo_id: str) -> Iterator[None]:
    """Turn the client's errors inside into StudioError that says what to look at."""
    try:
        yield
    except hub_refusals() as error:
        raise StudioError(
            f"{repo_id} could not be pushed to ({type(error).__name__}: {error}); is the name right, the network up, "
            "and a token that may write set (HF_TOKEN, or `hf auth login`)?"
        ) from error
