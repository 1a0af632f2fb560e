"""The decision thread: decides by duels beside the votes, which never wait for it."""

import logging
import threading
import time

from dmpo_app.errors import StudioError
from dmpo_app.judging.service import JudgingService

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0
"""Votes within so long are decided on together."""
_MAX_SHARE = 0.05
"""The share of the time that deciding may take, which votes would feel: tests of thousands of judgements come rarer."""
_LOOK_SECONDS = 10.0
"""Between two looks without a vote: other processes write judgements too."""


class DecisionThread:
    """A thread that calls `JudgingService.decide` at its start, after votes, and every few seconds."""

    def __init__(self, judging: JudgingService) -> None:
        self._judging = judging
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start deciding, with what there is already."""
        self._thread = threading.Thread(target=self._run, name="judging", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have it decide soon: a judgement was given or taken back. Takes no time."""
        self._woken.set()

    def stop(self) -> None:
        """Stop after the decision at hand. Without a start nothing happens."""
        self._stopping.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()

    def tick(self) -> None:
        """Decide once; what keeps it from that is logged, and passes or is told elsewhere too."""
        try:
            action = self._judging.decide()
        except StudioError as error:
            _log.warning("versions could not be judged just now: %s", error)
        except Exception:  # noqa: BLE001 - whatever is wrong, this thread must go on; the log has all of it
            _log.exception("versions could not be judged; trying again")
        else:
            _log.debug("judged by duels: %s", action.value)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            started_at = time.monotonic()
            self.tick()
            pause = max(_PAUSE_SECONDS, (time.monotonic() - started_at) / _MAX_SHARE)
            if not self._stopping.wait(pause):
                self._woken.wait(_LOOK_SECONDS)
