"""A real PostgreSQL server in a temporary folder, for as long as a test session runs."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from dmpo_app.settings import PROJECT_ROOT

_ROOT_MAY_NOT = "nobody"
"""PostgreSQL refuses to run as root; whose server it is then."""


class PostgresServer:
    """A server that listens on a socket of its own, in no network."""

    def __init__(self, folder: Path, control: Sequence[str], options: str) -> None:
        self._folder, self._control, self._options = folder, control, options

    def start(self) -> None:
        self._run("--options", self._options, "start")

    def stop(self) -> None:
        """Stop at once, as after a crash: what was committed is recovered at the next start."""
        self._run("--mode", "immediate", "stop")

    def _run(self, *arguments: str) -> None:
        subprocess.run([*self._control, *arguments], check=True, capture_output=True, cwd=self._folder)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://tests@/{database}?host={self._folder}"

    def create_database(self, template: str = "template1") -> str:
        """A new database, a copy of `template`; returns its name."""
        name = f"home_{secrets.token_hex(6)}"
        with self._administrator() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        return name

    def drop_database(self, name: str) -> None:
        with self._administrator() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def _administrator(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self._folder), user="tests", dbname="postgres", autocommit=True)


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    programs = Path(subprocess.check_output([PROJECT_ROOT / "scripts" / "postgres.sh"], text=True).strip())
    folder = Path(tempfile.mkdtemp(prefix="dmpo-pg-"))  # short: a socket's path may have about 100 characters
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, _ROOT_MAY_NOT)
        as_user = ["setpriv", f"--reuid={_ROOT_MAY_NOT}", "--clear-groups", "--"]
    data = str(folder / "data")
    make = [
        "--pgdata",
        data,
        "--username",
        "tests",
        "--auth",
        "trust",
        "--encoding",
        "UTF8",
        "--locale",
        "C",
        "--no-sync",
    ]
    subprocess.run(
        [*as_user, str(programs / "initdb"), *make, "--no-sync"], check=True, capture_output=True, cwd=folder
    )
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=300"
    control = [*as_user, str(programs / "pg_ctl"), "--pgdata", data, "--wait", "--log", str(folder / "server.log")]
    server = PostgresServer(folder, control, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
