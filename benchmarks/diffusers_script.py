"""Runs a training script of diffusers as it is, in turns: `benchmarks.step_speed` starts this.

    PYTHON -m benchmarks.diffusers_script --turn ARGUMENTS [--threads 1] SCRIPT [the script's own arguments]

The script's text is not touched. Its progress bar is: after every optimizer step the script calls `update` on it, and
there this process looks at the clock and, between turns, waits. From one call to the next is one whole step: loading
the batch, encoding images and prompts, both passes, the update and the script's own logging.
"""

import argparse
import runpy
import sys
from typing import Any

from benchmarks.step_turns import TurnArguments, Turns, clocks, peak_bytes, seconds_a_step

_BAR = "Steps"
"""What the scripts call the progress bar of their training."""


class StepClock:
    """Counts steps; reports and waits at the end of the warm-up and of every turn."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._steps = 0
        self._started = (0.0, 0.0)

    def step(self) -> None:
        self._steps += 1
        arguments = self._turns.arguments
        done = self._steps - arguments.warmup
        if done < 0 or done % arguments.steps:
            return
        self._turns.report({"step": seconds_a_step(self._started, arguments.steps)} if done else {"ready": True})
        if done == arguments.steps * arguments.turns:
            self._turns.report({"peak_bytes": peak_bytes()})
            return
        self._turns.wait()
        self._started = clocks()


def watch_progress_bar(clock: StepClock) -> None:
    """Let the bar named "Steps" of every script that imports tqdm from now on tell the clock."""
    from tqdm import auto

    class WatchedBar(auto.tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def update(self, n: float | None = 1) -> Any:
            result = super().update(n)
            if (self.desc or "").startswith(_BAR):
                clock.step()
            return result

    auto.tqdm = WatchedBar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turn", type=TurnArguments.parse, required=True)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("script")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    watch_progress_bar(StepClock(Turns(arguments.turn)))
    sys.argv = [arguments.script, *arguments.rest]
    runpy.run_path(arguments.script, run_name="__main__")


if __name__ == "__main__":
    main()
