from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from dmpo_app.errors import ExpiredError, ForbiddenError, NotFoundError, SetupError
from dmpo_app.labeling import Sealer, load_or_create_key
from tests.store.store_data import Clock


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(Fernet.generate_key())


def test_a_session_token_opens_as_who_it_was_made_for(sealer: Sealer) -> None:
    assert sealer.open_session(sealer.seal_session("anna")) == "anna"


def test_an_image_token_is_good_until_its_time(sealer: Sealer, clock: Clock) -> None:
    token = sealer.seal_image(42, clock() + timedelta(minutes=1))
    assert sealer.open_image(token, now=clock()) == 42
    clock.advance(timedelta(minutes=1))
    with pytest.raises(ExpiredError):
        sealer.open_image(token, now=clock())


def test_two_tokens_for_one_image_have_nothing_in_common(sealer: Sealer, clock: Clock) -> None:
    first, second = (sealer.seal_image(42, clock()) for _ in range(2))
    prefix = len("gAAAAA") + 8  # the format's version and the second it was made in
    assert first[prefix:] != second[prefix:]
    assert "42" not in {first, second}


def test_one_kind_of_token_never_opens_as_the_other(sealer: Sealer, clock: Clock) -> None:
    with pytest.raises(NotFoundError):
        sealer.open_image(sealer.seal_session("anna"), now=clock())
    with pytest.raises(ForbiddenError):
        sealer.open_session(sealer.seal_image(42, clock() + timedelta(hours=1)))
    later = clock() + timedelta(hours=1)
    with pytest.raises(ForbiddenError):
        sealer.open_session(sealer.seal_note("login", "s:anna", later))
    assert sealer.open_note("login", sealer.seal_note("login", "a:b", later), now=clock()) == "a:b"
    for token in (sealer.seal_session("login"), sealer.seal_image(42, later), sealer.seal_note("admin", "a:b", later)):
        assert sealer.open_note("login", token, now=clock()) is None


def forgeries(token: str) -> list[str]:
    changed = [token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(len(token))]
    return [*changed, "", "x", token[:-4], token + token, "\ud800", "é" * 100, "A" * 100_000, "gAAAAA==", token[::-1]]


def test_no_forgery_opens(sealer: Sealer, clock: Clock) -> None:
    image = sealer.seal_image(42, clock() + timedelta(hours=1))
    session = sealer.seal_session("anna")
    for forged in [*forgeries(image), Sealer(Fernet.generate_key()).seal_image(42, clock() + timedelta(hours=1))]:
        with pytest.raises(NotFoundError):
            sealer.open_image(forged, now=clock())
    for forged in [*forgeries(session), Sealer(Fernet.generate_key()).seal_session("anna")]:
        with pytest.raises(ForbiddenError):
            sealer.open_session(forged)


def test_the_key_outlives_the_process_and_is_the_owner_s_alone(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path)
    assert load_or_create_key(tmp_path) == key
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_a_home_has_one_key_even_if_many_make_it_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            home = tmp_path / str(number)
            keys = list(pool.map(load_or_create_key, [home] * 4))
            assert keys == [load_or_create_key(home)] * 4
            assert [path.name for path in home.iterdir()] == ["secret.key"]


def test_a_spoilt_key_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_bytes(b"not a key")
    with pytest.raises(SetupError, match="delete it"):
        load_or_create_key(tmp_path)
