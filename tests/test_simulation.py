"""The simulated annotator against a server that speaks the API over HTTP."""

import io
import json
import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from PIL import Image

from dmpo_app.cli.simulation import SimulatedAnnotator
from dmpo_app.domain.vote import Choice
from dmpo_app.errors import BadInputError, StudioError
from dmpo_app.labeling.tastes import TASTES
from tests.patience import PATIENCE


class VotingServer(BaseHTTPRequestHandler):
    """Shows a red image on the left of even assignments, on the right of odd ones; remembers what is voted."""

    taken: list[dict[str, Any]]
    more: list[str]

    def do_GET(self) -> None:
        if self.path.startswith("/api/v1/assignments"):
            number = len(self.taken)
            sides = ("red", "blue") if number % 2 == 0 else ("blue", "red")
            left, right = (f"/api/v1/images/{colour}" for colour in sides)
            shown = {"left": left, "right": right, "more": [f"/api/v1/images/{colour}" for colour in self.more]}
            self._answer({"assignments": [{"id": str(number), "prompt": "a cat", **shown}]})
        else:
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), self.path.rsplit("/", 1)[1]).save(buffer, "PNG")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(buffer.getvalue())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/session"):
            self._answer({"annotator": "x", "token": "t"})
        elif self.headers["Authorization"] != "Bearer t":
            self.send_error(401)
        else:
            self.taken.append(body)
            self._answer({"vote": len(self.taken), "votes_until_round": 7})

    def _answer(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    VotingServer.taken, VotingServer.more = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), VotingServer)
    Thread(target=server.serve_forever, daemon=True).start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", timeout=PATIENCE) as client:
        yield client
    server.shutdown()
    server.server_close()


def annotator(client: httpx.Client, wrong_share: float = 0.0) -> SimulatedAnnotator:
    return SimulatedAnnotator(client, TASTES["warm"], wrong_share=wrong_share, rng=random.Random(0), handle="me")


def test_it_chooses_the_image_its_taste_prefers_on_whichever_side_it_is(client: httpx.Client) -> None:
    votes = list(annotator(client).votes(4))
    assert [vote.choice for vote in votes] == [Choice.LEFT, Choice.RIGHT] * 2
    assert [body["choice"] for body in VotingServer.taken] == ["left", "right"] * 2
    assert votes[-1].votes_until_round == 7


def test_a_share_of_the_votes_is_wrong_and_says_so(client: httpx.Client) -> None:
    votes = list(annotator(client, wrong_share=0.3).votes(60))
    right = [Choice.LEFT, Choice.RIGHT] * 30
    assert [vote.choice is not expected for vote, expected in zip(votes, right, strict=True)] == [
        vote.is_wrong for vote in votes
    ]
    assert 8 <= sum(vote.is_wrong for vote in votes) <= 30


def test_a_set_is_ranked_by_the_scores_of_the_taste_and_a_wrong_ranking_is_worst_first(client: httpx.Client) -> None:
    VotingServer.more = ["purple", "white"]  # as warm as 255, 0, -255 (red, white, blue), and purple as white
    votes = list(annotator(client, wrong_share=0.3).votes(40))
    assert {vote.choice for vote in votes} == {None}
    assert [body["order"] for body in VotingServer.taken] == [list(vote.order) for vote in votes]
    assert not any("choice" in body for body in VotingServer.taken)
    middles = set()
    for number, vote in enumerate(votes):
        red, blue = (0, 1) if number % 2 == 0 else (1, 0)
        first, *middle, last = reversed(vote.order) if vote.is_wrong else vote.order
        assert (first, last) == (red, blue)
        middles.add(tuple(middle))
    assert middles == {(2, 3), (3, 2)}, "what is equal comes by lot"
    assert 4 <= sum(vote.is_wrong for vote in votes) <= 22


def test_a_share_that_is_none_is_refused(client: httpx.Client) -> None:
    with pytest.raises(BadInputError, match=r"1\.5"):
        annotator(client, wrong_share=1.5)


def test_an_answer_that_is_an_error_is_told_with_its_status(client: httpx.Client) -> None:
    voter = annotator(client)
    voter._headers["Authorization"] = "Bearer of somebody else"
    with pytest.raises(StudioError, match="401"):
        list(voter.votes(1))
