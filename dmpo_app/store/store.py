"""The store of one home: the entry to all its subjects."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock
from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError

from dmpo_app.errors import SetupError
from dmpo_app.store.adapters import Adapters, Lease
from dmpo_app.store.audit import Audit
from dmpo_app.store.damage import Damage
from dmpo_app.store.db.database import Database, parse_url, sqlite_url, upgrade
from dmpo_app.store.files import Files, RemoteFiles
from dmpo_app.store.home import claim_database, make_home, require_own_database
from dmpo_app.store.imports.imports import Imports
from dmpo_app.store.judging.duels import Duels
from dmpo_app.store.judging.effects import Effects
from dmpo_app.store.judging.studies import Studies
from dmpo_app.store.judging.verdicts import Verdicts
from dmpo_app.store.pairs.images import Images, Models
from dmpo_app.store.pairs.pairs import GoldPairs, PairMargins, Pairs, Scores
from dmpo_app.store.prompt_catalog import PromptCatalog
from dmpo_app.store.prompts import Prompts
from dmpo_app.store.rounds import Rounds
from dmpo_app.store.voting.annotators import Annotators, Consents, Invites
from dmpo_app.store.voting.assignments import Assignments
from dmpo_app.store.voting.own_votes import OwnVotes
from dmpo_app.store.voting.reports import Reports
from dmpo_app.store.voting.strikes import Strikes
from dmpo_app.store.voting.taken_back import TakenBackVotes
from dmpo_app.store.voting.vote_queries import VotedPairs
from dmpo_app.store.voting.votes import VoteRecords, Votes

DATABASE_NAME = "studio.db"

_LOCK_SECONDS = 120.0
_RESERVE_BYTES = 64 << 20


def utc_now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


class Store:
    """The store of one home, by subject. Safe for any number of threads and processes.

    A method is a transaction; one that writes returns when its work is on disk. Any of them raises BusyError when too
    many are waiting, and StorageFullError when the disk takes no more; then nothing was recorded.

    `database` and `read` are for tools and tests, which look at the tables themselves. These are no interface: they
    change with the schema's revisions.
    """

    def __init__(self, home: Path, database: Database, files: Files, now: Callable[[], datetime]) -> None:
        self.database = database
        self.home = home
        self.files = files
        self.models = Models(database, now)
        self.prompts = Prompts(database, now)
        self.prompt_catalog = PromptCatalog(database, now)
        self.damage = Damage(database, self.files, now)
        self.images = Images(database, self.files, now)
        self.pairs = Pairs(database, self.files, now)
        self.pair_margins = PairMargins(database)
        self.imports = Imports(database, self.files, now)
        self.gold = GoldPairs(database, now)
        self.scores = Scores(database, now)
        self.annotators = Annotators(database, now)
        self.assignments = Assignments(database, now)
        self.votes = Votes(database, now)
        self.own_votes = OwnVotes(database, now)
        self.taken_back = TakenBackVotes(database)
        self.reports = Reports(database, now)
        self.strikes = Strikes(database, now)
        self.consents = Consents(database, now)
        self.invites = Invites(database, now)
        self.audit = Audit(database, now)
        self.duels = Duels(database, self.files, now)
        self.vote_records = VoteRecords(database)
        self.voted_pairs = VotedPairs(database)
        self.adapters = Adapters(database, home, now)
        self.studies = Studies(database, now)
        self.verdicts = Verdicts(database)
        self.rounds = Rounds(database, self.adapters, now)
        self.lease = Lease(database, now)
        self.effects = Effects(database, now)

    @classmethod
    def open(
        cls,
        home: Path,
        *,
        database_url: str | None = None,
        remote: RemoteFiles | None = None,
        is_database_adopted: bool = False,
        now: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open a home, made and brought to the present schema if need be; two processes may do so at once.

        Its database is a file in it, or the one at `database_url`, which belongs to this home alone. Images, latents
        and embeddings are files in it, and in `remote` as well where that is set.
        `is_database_adopted`: a PostgreSQL database of another home is taken over. Raises UnsafeSQLiteError, and
        SetupError for a home that cannot be written, comes from a newer version, or is not its database's.
        """
        home = home.expanduser().absolute()
        url = parse_url(database_url) if database_url else sqlite_url(home / DATABASE_NAME)
        try:
            make_home(home)
            with FileLock(home / "migrate.lock", timeout=_LOCK_SECONDS):
                database = Database.open(url)
                try:
                    if database_url:
                        require_own_database(database, home, is_adopted=is_database_adopted)
                    if database.write(upgrade):
                        # Measured: on the connection that changed the schema every statement stays slower, votes by a
                        # third; on a fresh one they are not.
                        database.close()
                        database = Database.open(url)
                    if database_url:
                        claim_database(database, home, is_adopted=is_database_adopted, at=now())
                    return cls(home, database, Files(home, remote), now)
                except BaseException:
                    database.close()
                    raise
        except DBAPIError as error:
            name, advice = url.database, "DMPO_HOME to another folder"
            if database_url:
                name, advice = url.render_as_string(), "DMPO_DATABASE_URL to another database"
            raise SetupError(
                f"{name} could not be brought to the present schema ({error.orig}); it was left as it was. Is it of "
                f"another program? Set {advice} to start afresh."
            ) from error
        except OSError as error:
            raise SetupError(
                f"the home {home} cannot be used ({error}); set DMPO_HOME to a folder that can be written"
            ) from error

    @property
    def num_waiting_writes(self) -> int:
        """The number of writes that wait for the store's writer."""
        return self.database.num_waiting

    def storage_problem(self) -> str | None:
        """Say why the disk takes no more, or soon will not; None while there is room.

        Full is a file system of the home with less than 64 MiB free, or 5 % of a small one; or one that refused a write
        within the last minute, as under a quota.
        """
        usage = shutil.disk_usage(self.home)
        reserve = min(_RESERVE_BYTES, usage.total // 20)
        if usage.free < reserve:
            return (
                f"The disk of the home is nearly full: {usage.free >> 20} MiB are free. Votes are refused once nothing "
                "is left; free some space."
            )
        if self.database.has_lately_failed:
            return "The disk has refused a write within the last minute, so votes may be refused; free some space."
        return None

    def read(self, query: str, **values: Any) -> list[Row[*tuple[Any, ...]]]:
        """Run an SQL query with `:name` in the place of each of `values`; it cannot write."""
        with self.database.reader() as connection:
            return list(connection.execute(text(query), values))

    def close(self) -> None:
        """Finish queued writes and close the database. Calling it again does nothing."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
