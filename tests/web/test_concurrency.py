"""Threads and turns of requests: what waits behind what, and what is told to many at once."""

import asyncio
import threading
import time
from concurrent.futures import Future

import pytest

from dmpo_app.web.services import Coalesced, ThreadLimiter, WriterLimiter
from tests.patience import PATIENCE

SECONDS = 0.05
"""Between two answers of a `Coalesced`."""


def test_all_who_ask_while_one_answer_is_made_share_the_next_one() -> None:
    asked, gate = [], threading.Event()

    def work() -> int:
        asked.append(time.monotonic())
        gate.wait(PATIENCE)
        return len(asked)

    async def many() -> list[int]:
        shared = Coalesced(ThreadLimiter(4), work, seconds=0.01)
        first = asyncio.create_task(shared.get())
        while not asked:
            await asyncio.sleep(0.001)
        late = [asyncio.create_task(shared.get()) for _ in range(50)]  # what is being made is older than their question
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(first, *late)

    assert asyncio.run(many()) == [1, *[2] * 50]


def test_answers_are_made_no_more_often_than_said_and_what_fails_is_told_and_tried_anew() -> None:
    begun: list[float] = []

    def work() -> int:
        begun.append(time.monotonic())
        if len(begun) == 2:
            raise RuntimeError("the second fails")
        return len(begun)

    async def one_after_another() -> list[int]:
        shared = Coalesced(ThreadLimiter(4), work, seconds=SECONDS)
        found = [await shared.get()]
        with pytest.raises(RuntimeError, match="the second fails"):
            await shared.get()
        return [*found, await shared.get()]

    asked = time.monotonic()
    assert asyncio.run(one_after_another()) == [1, 3]
    # Since the question: on a busy machine the first work begins late, and the second soon after it.
    assert all(moment - asked > 0.98 * SECONDS * count for count, moment in enumerate(begun))


def test_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    async def two() -> str:
        shared = Coalesced(ThreadLimiter(4), lambda: "here", seconds=0.02)
        await shared.get()
        leaving, staying = asyncio.create_task(shared.get()), asyncio.create_task(shared.get())
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(two()) == "here"


def test_no_more_than_its_width_is_handed_to_the_writer_and_a_failed_one_makes_room() -> None:
    handed: list[Future[int]] = []

    def submit() -> Future[int]:
        handed.append(Future())
        return handed[-1]

    async def five() -> list[int | BaseException]:
        limiter = WriterLimiter(2)
        asking = [asyncio.create_task(limiter.run(submit)) for _ in range(5)]
        for number in range(5):
            for _ in range(20):  # more turns of the loop than the limiter takes to hand all that it would
                await asyncio.sleep(0)
            assert len(handed) == min(5, number + 2)
            if number == 1:
                handed[number].set_exception(ValueError("no"))
            else:
                handed[number].set_result(number)
        return await asyncio.gather(*asking, return_exceptions=True)

    answers = asyncio.run(five())
    assert [answer if isinstance(answer, int) else type(answer) for answer in answers] == [0, ValueError, 2, 3, 4]
