"""Opening the store of a home as the settings have it: where its database is, and where its files are."""

from __future__ import annotations

from dmpo_app.backup.remotes.remote import open_remote
from dmpo_app.settings import Settings
from dmpo_app.store import Store


def open_store(settings: Settings) -> Store:
    """The home's store, to be closed by the caller. Raises like `Store.open`, and SetupProblem for a storage of files
    that no installed package understands."""
    elsewhere = None if settings.files_url is None else open_remote(settings.files_url)
    return Store.open(settings.home, database_url=settings.database, elsewhere=elsewhere)
