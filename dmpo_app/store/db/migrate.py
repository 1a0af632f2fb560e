"""Migration of a database to the schema of this version."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from dmpo_app.errors import SetupError

HEAD = "0009"
"""The newest revision under migrations/versions."""

MIGRATIONS = Path(__file__).parents[1] / "migrations"


def current_revision(connection: Connection) -> str | None:
    """The schema revision of a database; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def upgrade(connection: Connection) -> bool:
    """Upgrade to HEAD within the caller's transaction; False when there was nothing to do.

    Raises SetupError for a database newer than this version.
    """
    revision = current_revision(connection)
    if revision == HEAD:
        return False
    # Imported only when there is something to do: it would add a quarter of a second to every start.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    if revision is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(revision)
        except CommandError as error:
            raise SetupError(
                f"this home was written by a newer version of DMPO Studio (schema {revision}, this version knows "
                f"{HEAD}); update the program, or set DMPO_HOME to another folder"
            ) from error
    command.upgrade(config, "head")
    return True
