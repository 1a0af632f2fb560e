"""The studio's names for what databases and their drivers complain of."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, OperationalError

from dmpo_app.errors import BadInput, Busy, StorageFull, StudioError
from dmpo_app.store.db import postgresql, sqlite


def translate(error: BaseException) -> BaseException:
    """The studio's name for an error of the database or its driver, caused by it; any other error as it is.

    StorageFull and Busy for a failing disk and a locked database; BadInput for values that no column can hold.
    """
    named: StudioError | None = None
    if isinstance(error, DBAPIError):
        named = _named(error)
    elif isinstance(error, OverflowError):
        named = BadInput("a number is larger than any that is stored here")
    elif isinstance(error, UnicodeEncodeError):
        named = BadInput("a text holds half a character (a lone surrogate)")
    if named is None:
        return error
    named.__cause__ = error
    return named


def breaks_transaction(error: BaseException) -> bool:
    """Whether a whole transaction is lost with this error, not only the statement that met it."""
    return isinstance(error, DBAPIError) and isinstance(_named(error), StorageFull | Busy)


def _named(error: DBAPIError) -> StudioError | None:
    said = str(error.orig)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return sqlite.named(code, said)
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str) or isinstance(error, OperationalError):
        return postgresql.named(state, said)
    return None
