import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError

from dmpo_app.domain.campaign import ReportReason, ReportRules
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.domain.vote import Annotator, Choice, Question
from dmpo_app.errors import SetupError
from dmpo_app.store import Store
from dmpo_app.store.db.database import HEAD, MIGRATIONS
from dmpo_app.store.db.sqlite import safe_driver
from dmpo_app.store.schema import Table
from tests.patience import PATIENCE
from tests.store.store_data import HOUR, broken_counts, integrity_of, new_pair, scalar, vote_once
from tests.store.store_fixtures import reopened, sqlite_only

OPEN_AND_REGISTER = """
import sys
from pathlib import Path
from dmpo_app.store import Store
sys.stdin.readline()  # both start at the same moment
with Store.open(Path(sys.argv[1])) as store:
    print(store.models.register("pocket", "stable-diffusion", "f" * 64).id)
"""


def test_the_migrated_schema_is_the_one_the_code_declares(store: Store) -> None:
    with store.database.reader() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


@sqlite_only
def test_not_a_check_nor_a_condition_of_an_index_is_missing_from_the_migrations(store: Store, tmp_path: Path) -> None:
    declared = create_engine(f"sqlite+pysqlite:///{tmp_path / 'declared.db'}", module=safe_driver())
    Table.metadata.create_all(declared)
    definitions = text("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL")

    def parts_by_name(connection: Connection) -> dict[str, list[str]]:
        """A table's definition, part by part: neither their order counts nor that ALTER TABLE writes on one line."""
        rows = connection.execute(definitions)
        outside_brackets = re.compile(r",\s+(?![^()]*\))|\n")
        return {row.name: sorted(part.strip(" ,\t") for part in outside_brackets.split(row.sql)) for row in rows}

    with declared.connect() as connection:
        expected = parts_by_name(connection)
    declared.dispose()
    with store.database.reader() as connection:
        found = parts_by_name(connection)
    del found["alembic_version"]
    assert found == expected


def test_the_newest_revision_is_the_one_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


@sqlite_only
def test_two_processes_can_open_a_fresh_home_at_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_REGISTER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=PATIENCE)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers == ["1", "1"]
    assert integrity_of(home) == "ok"


@sqlite_only
def test_a_home_of_the_first_schema_is_brought_up_with_all_it_holds(tmp_path: Path) -> None:
    connection = safe_driver().connect(tmp_path / "studio.db")
    connection.close()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite+pysqlite:///{tmp_path / 'studio.db'}", module=safe_driver())
    with engine.begin() as opened:
        config.attributes["connection"] = opened
        command.upgrade(config, "0001")
        opened.execute(
            text(
                "INSERT INTO rounds (base_id, status, trigger, seed, step, steps, attempts, num_votes, last_vote_id, "
                "parent_version, config, created_at) VALUES (1, 'published', 'votes', 0, 1, 1, 1, 1, 1, 0, '{}', 0)"
            )
        )
        opened.execute(text("INSERT INTO round_progress VALUES (1, 1, 0.5, 0.1, 0.6, 0.0, NULL, 0)"))
    engine.dispose()
    with Store.open(tmp_path) as store:
        (point,) = store.rounds.list_progress(1)
    assert (point.loss, point.health) == (0.5, {})


@sqlite_only
def test_going_back_a_schema_and_forth_keeps_the_votes_that_the_older_one_knows(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    store.pairs.add_many(base, [new_pair(number) for number in range(3)])
    both = (Question.OVERALL, Question.FIT)
    asked = store.assignments.issue(base, anna.id, 6, rng=random.Random(0), lifetime=HOUR, questions=both).result()
    for one in asked[:5]:
        store.votes.record(one.id, anna.id, Choice.LEFT, 10)
    withdrawn = store.votes.training_votes(base)[1].vote_id
    store.own_votes.withdraw(withdrawn, anna.id)
    kept = store.votes.training_votes(base)
    store.close()
    engine = create_engine(f"sqlite+pysqlite:///{store.home / 'studio.db'}", module=safe_driver())
    with engine.begin() as opened:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = opened
        command.downgrade(config, "0002")
        triggers = set(opened.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars())
    engine.dispose()
    assert {"votes_are_never_changed", "votes_are_undone_once"} <= triggers
    assert "votes_are_withdrawn_once" not in triggers
    with Store.open(store.home) as again:
        assert again.votes.training_votes(base) == kept
        assert again.votes.count(base) == len(kept) == 2
        assert scalar(again, "SELECT count(*) FROM votes") == 5
        assert broken_counts(again) == 0
    assert integrity_of(store.home) == "ok"


def test_a_home_of_a_newer_version_is_refused_and_left_alone(store: Store) -> None:
    store.database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    store.close()
    with pytest.raises(SetupError, match=r"newer version.*9999.*update the program"):
        reopened(store)


@sqlite_only
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "studio.db").write_bytes(b"holiday photographs " * 400)
    with pytest.raises(SetupError, match="DMPO_HOME"):
        Store.open(tmp_path)
    assert (tmp_path / "studio.db").read_bytes() == b"holiday photographs " * 400


def test_a_home_that_cannot_be_made_is_a_setup_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match="DMPO_HOME"):
        Store.open(tmp_path / "file" / "home")


@sqlite_only
def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = safe_driver().connect(tmp_path / "studio.db")
    connection.execute("CREATE TABLE votes (somebody_elses TEXT)")
    connection.close()
    with pytest.raises(SetupError, match="votes already exists"):
        Store.open(tmp_path)
    connection = safe_driver().connect(tmp_path / "studio.db")
    assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("votes",)]
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM votes", "never deleted"),
        ("UPDATE votes SET choice = 'tie'", "never changed"),
        ("UPDATE votes SET created_at = 0", "never changed"),
        ("UPDATE votes SET undone_at = 1; UPDATE votes SET undone_at = 2", "undone once"),
        ("UPDATE votes SET undone_at = 1; UPDATE votes SET undone_at = NULL", "undone once"),
        ("UPDATE votes SET withdrawn_at = 1; UPDATE votes SET withdrawn_at = NULL", "withdrawn once"),
        ("UPDATE votes SET question = 'fit'", "never changed"),
        ("UPDATE votes SET strength = 'slightly'", "never changed"),
        ("UPDATE votes SET comment = 'edited'", "never changed"),
        ("DELETE FROM reports", "never deleted"),
        ("UPDATE reports SET reason = 'other'", "never changed"),
        ("UPDATE reports SET cleared_at = 1; UPDATE reports SET cleared_at = NULL", "cleared once"),
        ("UPDATE reports SET network = 'another'", "never changed"),
        ("UPDATE reports SET confirmed_at = 1; UPDATE reports SET confirmed_at = NULL", "confirmed once"),
        ("DELETE FROM consents", "never deleted"),
        ("UPDATE consents SET version = '9'", "never changed"),
        ("DELETE FROM consent_texts", "never deleted"),
        ("UPDATE consent_texts SET text = 'other words'", "never changed"),
        ("DELETE FROM audit_log", "never deleted"),
        ("UPDATE audit_log SET actor = 'somebody else'", "never changed"),
    ],
)
def test_the_database_itself_keeps_what_is_append_only(
    store: Store, base: BaseModelRef, anna: Annotator, statement: str, message: str
) -> None:
    store.pairs.add(base, new_pair())
    shown, _ = vote_once(store, base, anna)
    report = store.reports.add(shown.id, anna.id, ReportReason.BROKEN, None, rules=ReportRules(9))
    store.consents.agree(anna.id, "a" * 64, "1")
    store.invites.create(["class"], max_uses=1, lifetime=HOUR, by="cli")

    def work(connection: Connection) -> None:
        for one in statement.split(";"):
            connection.execute(text(one))

    with pytest.raises(IntegrityError, match=message):
        store.database.write(work)
    assert store.votes.count(base) == 1
    assert store.reports.list(base) == [report]


def test_a_row_cannot_refer_to_what_does_not_exist(store: Store) -> None:
    with pytest.raises(IntegrityError, match=r"FOREIGN KEY|foreign key"):
        store.database.write(
            lambda connection: connection.execute(
                text("INSERT INTO live_changes (base_id, version, by, created_at) VALUES (1, 3, 'x', 0)")
            )
        )


def test_opening_again_finds_everything(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    store.pairs.add(base, new_pair())
    vote_once(store, base, anna)
    store.close()
    with reopened(store) as again:
        assert again.votes.count(base) == 1
        assert again.annotators.get(anna.public_id) == anna
