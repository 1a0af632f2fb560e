"""The whole loop on PostgreSQL: a real server, the studio and its trainer, and what is in the database in the end."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dmpo_app.diffusion.base_models import fingerprint
from dmpo_app.errors import BusyError, SetupError
from dmpo_app.store import Store
from dmpo_app.store.db.postgresql import _SERVER_LOCK_KEY
from dmpo_app.store.home import place_of
from tests.patience import PATIENCE
from tests.postgres_server import PostgresServer, running_server
from tests.preloaded_studio import PreloadedStudio
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        yield running


def test_votes_train_a_version_that_is_live_and_all_of_it_is_in_the_database(
    server: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "train.txt").write_text("\n".join(f"a {colour} cat" for colour in ("red", "blue", "green", "pink")))
    (tmp_path / "held-out.txt").write_text("a yellow tree\n")
    model, database_url = make_tiny_pipeline(tmp_path / "model"), server.url(server.create_database())
    studio = PreloadedStudio(
        tmp_path / "home",
        DATABASE_URL=database_url,
        BASE_MODEL=model,
        POOL__TRAIN_PROMPTS=tmp_path / "train.txt",
        POOL__HELD_OUT_PROMPTS=tmp_path / "held-out.txt",
        POOL__SIZE=12,
        RENDER__NUM_STEPS=1,
        MIN_VOTES=4,
        ROUND__NUM_STEPS=4,
        ROUND__HELD_OUT_SHARE=0,
        TRAINER__POLL_SECONDS=0.1,
    )
    with studio:
        studio.wait_for(lambda status: status["pool"] >= 8)
        with studio.client() as client:
            token = client.post("/api/v1/session", json={"handle": "ada"}).json()["token"]
            headers = {"Authorization": f"Bearer {token}"}
            for _ in range(8):
                shown = client.get("/api/v1/assignments?count=1", headers=headers).json()["assignments"][0]
                body = {"assignment": shown["id"], "choice": "left", "elapsed_ms": 900}
                assert client.post("/api/v1/votes", json=body, headers=headers).status_code == 201
        live = studio.wait_for(lambda status: status["live_version"] >= 1, seconds=2 * PATIENCE)
    assert not list(studio.home.glob("*.db*")), "nothing of it went to a file"
    with Store.open(studio.home, database_url=database_url) as store:
        base = store.models.register("again", "stable_diffusion", fingerprint(str(model)))
        assert store.votes.count(base) == 8
        assert store.adapters.live_version(base) == live["live_version"]


def test_a_server_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    studio = PreloadedStudio(
        tmp_path / "home", DATABASE_URL="postgresql://ada:canary@127.0.0.1:9/studio", TRAIN="false"
    )
    with pytest.raises(AssertionError), studio:
        pass
    assert "postgresql://ada:***@127.0.0.1:9/studio cannot be reached" in " ".join(studio.log().split())
    assert "canary" not in studio.log()
    assert "Traceback" not in studio.log()


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.url(server.create_database())


@pytest.fixture
def first(url: str, tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "first", database_url=url) as opened:
        yield opened


def owner_of(url: str) -> tuple[str, ...]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return connection.execute("SELECT place FROM home").fetchall()[0]


def write(store: Store) -> None:
    store.annotators.ensure("ada")


def test_a_second_home_is_refused_with_both_their_names_and_the_way_out(first: Store, url: str, tmp_path: Path) -> None:
    with pytest.raises(
        SetupError, match=r"/first, and this is .*/second with another secret\.key.*DMPO_ADOPT_DATABASE"
    ):
        Store.open(tmp_path / "second", database_url=url)
    assert owner_of(url) == (place_of(tmp_path / "first"),)
    write(first)


def test_a_second_home_does_not_change_the_schema_of_the_first_ones_database(
    first: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upgrade(_: object) -> bool:
        raise AssertionError("a newer program would have brought it up to date")

    monkeypatch.setattr("dmpo_app.store.store.upgrade", upgrade)
    with pytest.raises(SetupError, match="/first, and this is"):
        Store.open(tmp_path / "second", database_url=url)


def test_a_home_that_was_moved_or_restored_from_its_key_still_fits(url: str, tmp_path: Path) -> None:
    Store.open(tmp_path / "first", database_url=url).close()
    (tmp_path / "first").rename(tmp_path / "moved")
    Store.open(tmp_path / "moved", database_url=url).close()
    assert owner_of(url) == (place_of(tmp_path / "moved"),)
    (tmp_path / "restored").mkdir()
    shutil.copy(tmp_path / "moved" / "secret.key", tmp_path / "restored")
    Store.open(tmp_path / "restored", database_url=url).close()
    assert owner_of(url) == (place_of(tmp_path / "restored"),)


def test_a_database_is_taken_over_on_purpose_but_not_from_a_home_that_is_served(
    first: Store, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first.database.hold_for_server("box:/first")
    with pytest.raises(SetupError, match=r"being served \(dmpo-studio \w+ box:/first\): stop that one first"):
        Store.open(tmp_path / "second", database_url=url, is_database_adopted=True)
    assert owner_of(url) == (place_of(tmp_path / "first"),)
    first.close()
    with Store.open(tmp_path / "second", database_url=url, is_database_adopted=True) as second:
        write(second)
    assert "takes over the database of" in caplog.text
    with pytest.raises(SetupError, match="belongs since"):
        Store.open(tmp_path / "first", database_url=url)


def test_a_server_on_a_copy_of_a_home_that_is_served_says_where_the_other_one_is(
    first: Store, url: str, tmp_path: Path
) -> None:
    first.database.hold_for_server("box:/srv/first")
    studio = PreloadedStudio(shutil.copytree(first.home, tmp_path / "copy"), DATABASE_URL=url, TRAIN="false")
    with pytest.raises(AssertionError), studio:
        pass
    assert "another studio serves this database: dmpo-studio" in " ".join(studio.log().split())
    assert "box:/srv/first" in studio.log()
    assert "Traceback" not in studio.log()


def test_a_server_holds_its_database_again_after_its_connection_was_lost(first: Store, url: str) -> None:
    first.database.hold_for_server("box:/first")
    plain_url = url.replace("+psycopg", "")
    with psycopg.connect(plain_url, autocommit=True) as administrator:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'dmpo-studio % box:/first'"
        [[lost]] = administrator.execute(query).fetchall()
        administrator.execute("SELECT pg_terminate_backend(%s)", (lost,))
        write(first)
        [[own]] = administrator.execute(query).fetchall()
        assert own != lost


def test_a_connection_of_its_own_that_only_the_network_lost_is_ended_by_the_server(first: Store, url: str) -> None:
    first.database.hold_for_server("box:/josé/first")
    plain_url = url.replace("+psycopg", "")
    query = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name LIKE '%/first'"
    with psycopg.connect(plain_url, autocommit=True) as lost:
        [[pid, name]] = lost.execute(query).fetchall()
        lost.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        lost.execute("SELECT set_config('application_name', %s, false)", (name,))
        assert lost.execute("SELECT pg_try_advisory_lock(%s)", (_SERVER_LOCK_KEY,)).fetchone() == (True,)
        write(first)
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")


def test_a_server_whose_place_another_took_while_it_was_cut_off_takes_no_more_votes(
    first: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.store.db.postgresql._SERVER_LOCK_SECONDS", 0.3)
    first.database.hold_for_server("box:/first")
    with Store.open(first.home, database_url=url) as second:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as administrator:
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%box:/first'"
            )
        second.database.hold_for_server("box:/second")
        with pytest.raises(BusyError, match=r"another studio serves this database by now: .*box:/second"):
            write(first)
    write(first)
