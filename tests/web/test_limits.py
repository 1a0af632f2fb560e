from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from dmpo_app.settings import LimitSettings
from dmpo_app.web import rate_limits
from dmpo_app.web.authentication import network_of
from dmpo_app.web.rate_limits import NestedLimiter, RateLimiter, WrongTokens
from tests.web.api_studio import ADMIN, ApiStudio


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_then_one_every_interval() -> None:
    time = Time()
    limit = RateLimiter(6, clock=time)
    assert [limit.take_token("a") for _ in range(6)] == [0.0] * 6
    assert limit.take_token("a") == pytest.approx(10.0)
    time.now += 10
    assert limit.take_token("a") == 0.0
    assert limit.take_token("a") > 0


def test_keys_do_not_share_a_bucket() -> None:
    limit = RateLimiter(1, clock=Time())
    assert (limit.take_token("a"), limit.take_token("b")) == (0.0, 0.0)
    assert limit.take_token("a") > 0


def test_the_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_IDENTITIES", 3)
    limit = RateLimiter(1, clock=Time())
    for key in "abcd":
        limit.take_token(key)
    assert limit.take_token("d") > 0
    assert limit.take_token("a") == 0.0


def test_limits_apply_in_public_mode_only(studio: ApiStudio) -> None:
    few = LimitSettings(votes_per_minute=2, renders_per_minute=1, sessions_per_minute=3)
    render = {"prompt": "a cat", "seed": 1, "versions": [0]}
    public, private = studio.with_settings(public=True, limits=few), studio.with_settings(public=False, limits=few)
    sessions = [public.post("/api/v1/session", json={}) for _ in range(4)]
    assert [answer.status_code for answer in sessions] == [200, 200, 200, 429]
    assert int(sessions[-1].headers["Retry-After"]) >= 1
    renders = [public.post("/api/v1/render", json=render).status_code for _ in range(2)]
    assert renders == [200, 429]
    assert [private.post("/api/v1/render", json=render).status_code for _ in range(4)] == [200] * 4
    assert [private.post("/api/v1/session", json={}).status_code for _ in range(5)] == [200] * 5


FEW = LimitSettings(votes_per_minute=2, sessions_per_minute=3, network_factor=2, total_factor=4)


def test_a_network_that_floods_empties_its_own_bucket_and_nobody_elses() -> None:
    limit = NestedLimiter(3, FEW, clock=Time())
    flood = [limit.take_token("10.0.0.0/24") for _ in range(1000)]
    assert flood.count(0.0) == 3
    assert [limit.take_token(f"10.{number}.0.0/24") for number in range(1, 10)] == [0.0] * 9


@pytest.mark.parametrize("network", ["10.0.{}.0/24", "2001:db8:aa00:{}::/64"])
def test_whoever_has_hundreds_of_networks_empties_their_region_and_nobody_elses(network: str) -> None:
    limit = NestedLimiter(3, LimitSettings(), clock=Time())
    flood = [limit.take_token(network.format(number)) for number in range(256) for _ in range(3)]
    assert flood.count(0.0) == 75
    for elsewhere in ("10.1.0.0/24", "2001:db8:aa01::/64", "testclient"):
        assert limit.take_token(elsewhere) == 0.0


def test_all_together_are_bounded_and_so_are_the_annotators_of_a_network() -> None:
    limit = NestedLimiter(2, FEW, clock=Time())
    taken = [limit.take_token(f"10.{number}.0.0/24") for number in range(20)]
    assert (taken[:8], taken[8] > 0) == ([0.0] * 8, True)
    limit = NestedLimiter(2, FEW, clock=Time())
    of_network = [limit.take_token("10.0.0.0/24", annotator_id) for annotator_id in range(6)]
    assert (of_network[:4], of_network[4] > 0) == ([0.0] * 4, True)
    assert limit.take_token("10.1.0.0/24", 9) == 0.0


@pytest.mark.parametrize(
    ("addresses", "network"),
    [
        (["203.0.113.7", "203.0.113.250", "::ffff:203.0.113.9"], "203.0.113.0/24"),
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::9"], "2001:db8:1:2::/64"),
        (["fe80::1%eth0"], "fe80::/64"),
        (["testclient"], "testclient"),
    ],
)
def test_addresses_of_one_network_are_one_peer(addresses: list[str], network: str) -> None:
    scopes = [{"type": "http", "client": (address, 1)} for address in addresses]
    assert {network_of(Request(scope)) for scope in scopes} == {network}


def test_a_flood_of_sessions_or_sign_ins_from_one_network_locks_no_other_out(studio: ApiStudio) -> None:
    app = studio.with_settings(public=True, limits=FEW).app
    flooder, other, neighbour = (TestClient(app, client=(host, 1)) for host in ("10.0.0.1", "10.0.1.1", "10.0.0.9"))
    statuses = [flooder.post("/api/v1/session", json={}).status_code for _ in range(50)]
    assert (statuses[:3], set(statuses[3:])) == ([200] * 3, {429})
    assert neighbour.post("/api/v1/session", json={}).status_code == 429
    assert other.post("/api/v1/session", json={}).status_code == 200
    assert {flooder.post("/api/v1/login").status_code for _ in range(9)} == {404}, "nobody can sign in here"


def test_who_guesses_the_administrators_token_is_slowed_down_and_told_of_and_locks_nobody_out(
    studio: ApiStudio, caplog: pytest.LogCaptureFixture
) -> None:
    limits = LimitSettings(admin_tries_per_minute=5)
    app = studio.with_settings(limits=limits).app
    attacker, administrator = TestClient(app, client=("10.0.0.1", 1)), TestClient(app, client=("10.0.0.2", 1))
    guesses = [
        attacker.get("/api/v1/audit", headers={"Authorization": f"Bearer guess-{number}"}) for number in range(40)
    ]
    assert [answer.status_code for answer in guesses] == [403] * 5 + [429] * 35
    assert int(guesses[-1].headers["Retry-After"]) >= 1
    assert administrator.get("/api/v1/audit", headers=ADMIN).status_code == 200
    lines = [record.message for record in caplog.records if "wrong administrators' token" in record.message]
    assert lines == ["1 wrong administrators' token, the last from 10.0.0.0/24"]


def test_wrong_tokens_are_counted_in_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    later: list[Callable[[], None]] = []
    tokens = WrongTokens(LimitSettings(), clock=Time(), run_later=lambda seconds, work: later.append(work))
    for _ in range(700):
        tokens.record("10.0.0.0/24")
    assert len(caplog.records) == 1
    later.pop()()
    assert [record.message.split()[0] for record in caplog.records] == ["1", "699"]
    later.pop()()
    assert (len(caplog.records), later) == (2, []), "nothing more to tell"
    tokens.record("10.0.0.0/24")
    assert len(caplog.records) == 3


def test_a_limit_counts_an_annotator_not_an_address(studio: ApiStudio) -> None:
    public = studio.with_settings(public=True, limits=LimitSettings(votes_per_minute=2))
    ada, eve = studio.session("Ada"), studio.session("Eve")

    def votes(who: dict[str, str], forwarded: str) -> list[int]:
        pairs = studio.assignments(who, 3)
        return [
            public.post(
                "/api/v1/votes",
                json={"assignment": pair["id"], "choice": "tie", "elapsed_ms": 5},
                headers={**who, "X-Forwarded-For": f"10.0.0.{index}{forwarded}"},
            ).status_code
            for index, pair in enumerate(pairs)
        ]

    assert votes(ada, "1") == [201, 201, 429]
    assert votes(eve, "1") == [201, 201, 429]
