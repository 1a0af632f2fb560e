"""The status of the studio."""

from __future__ import annotations

from dataclasses import dataclass

from dmpo_app.domain.data_import import EncodingProgress
from dmpo_app.domain.round import RoundState


@dataclass(frozen=True, slots=True)
class StudioStatus:
    """The status that GET /status returns. `encoding`: progress on imported pairs, while some have no latents."""

    votes: int
    votes_until_round: int
    pool: int
    live_version: int
    round: RoundState | None
    last_round: RoundState | None
    last_error: str | None
    encoding: EncodingProgress | None = None
