import pytest

from dmpo_app.settings import LimitSettings
from dmpo_app.web import services as rate_limits
from dmpo_app.web.services import RateLimiter
from tests.web.api_studio import ApiStudio


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
