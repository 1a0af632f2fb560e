"""A studio to test the API on: a real store, the real routes, stand-ins for the renderer and the trainer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from dmpo_app.labeling.service import LabelingService
from dmpo_app.labeling.sign_in import Sealer, load_or_create_key
from dmpo_app.settings import JudgingSettings, LabelingSettings, Settings
from dmpo_app.store import Store
from dmpo_app.web import Services, create_router
from dmpo_app.web.router import build_api_app
from tests.web.studio_fakes import SAMPLING, FakeRenderer, FakeTrainer, Rounds

ADMIN = {"Authorization": "Bearer the-administrators-token"}


@dataclass
class Clock:
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **much: float) -> None:
        self.at += timedelta(**much)


@dataclass
class ApiStudio:
    """A real store and a real API; the renderer and the trainer are stand-ins."""

    services: Services
    renderer: FakeRenderer
    clock: Clock
    client: TestClient

    def session(self, handle: str = "Ada") -> dict[str, str]:
        token = self.client.post("/api/v1/session", json={"handle": handle}).json()["token"]
        return {"Authorization": f"Bearer {token}"}

    def assignments(self, who: dict[str, str], count: int = 1) -> list[dict[str, Any]]:
        answer = self.client.get("/api/v1/assignments", params={"count": count}, headers=who)
        assert answer.status_code == 200, answer.text
        listed: list[dict[str, Any]] = answer.json()["assignments"]
        return listed

    def vote(self, who: dict[str, str], assignment: str, choice: str = "left") -> Any:
        body = {"assignment": assignment, "choice": choice, "elapsed_ms": 900}
        return self.client.post("/api/v1/votes", json=body, headers=who)

    def vote_times(self, count: int) -> None:
        who = self.session()
        for _ in range(count):
            assert self.vote(who, self.assignments(who)[0]["id"]).status_code == 201

    def publish(self, *, proven: bool = True) -> int:
        rounds = Rounds(self.services.store, self.services.base)
        round_id = rounds.start()
        rounds.step(round_id, 40)
        version = rounds.publish(round_id, proven=proven)
        self.services.store.lease.release(self.services.base, rounds.token)
        return version

    def with_settings(self, **changes: Any) -> TestClient:
        """A client of the same studio under other settings."""
        settings = self.services.settings.model_copy(update=changes)
        store, base = self.services.store, self.services.base
        sealer = Sealer(load_or_create_key(store.home))
        labeling = LabelingService(store, base, settings, sealer, rng=random.Random(1), now=self.clock)
        return client_of(replace(self.services, settings=settings, labeling=labeling))

    def with_duel_rate(self, rate: float) -> ApiStudio:
        """The same studio with this share of duels on the Label tab."""
        return replace(self, client=self.with_settings(judging=JudgingSettings(duel_rate=rate)))

    def with_campaign(self, **labeling: Any) -> ApiStudio:
        """The same studio as a campaign with these settings of labeling."""
        return replace(self, client=self.with_settings(labeling=LabelingSettings.model_validate(labeling)))


def client_of(services: Services) -> TestClient:
    return TestClient(build_api_app(create_router(services), services), raise_server_exceptions=False)


@contextmanager
def open_studio(home: Path) -> Iterator[ApiStudio]:
    clock = Clock()
    with Store.open(home, now=clock) as store:
        base = store.models.register("pocket", "stable_diffusion", "f" * 64)
        settings = Settings(home=home, min_votes=4, public=False)
        sealer = Sealer(load_or_create_key(store.home))
        labeling = LabelingService(store, base, settings, sealer, rng=random.Random(1), now=clock)
        renderer = FakeRenderer(store, base, size=16)
        services = Services(
            store,
            base,
            settings,
            labeling,
            renderer,
            FakeTrainer(),
            ADMIN["Authorization"].removeprefix("Bearer "),
            SAMPLING,
        )
        with client_of(services) as client:
            yield ApiStudio(services, renderer, clock, client)
        renderer.close()
