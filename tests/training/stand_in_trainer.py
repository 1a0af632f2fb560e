"""A trainer without torch, which lives, hangs and ends as the real one: for its supervisor, at a tenth of the start."""

import logging
import os
import sys
import tempfile
import time

from dmpo_app.io.liveness import Activity, LifeThread, advance, announce_through, phase, signal_on_parents_death
from dmpo_app.io.processes import StopFlag
from dmpo_app.training.process.supervisor import READY
from tests.training.hanging_objective import hang_if_asked

GRACE_SECONDS = 1.5


def main() -> None:
    parent_pid = int(sys.argv[sys.argv.index("--parent-pid") + 1])
    signal_on_parents_death(parent_pid)
    logging.basicConfig(level=logging.ERROR)
    sys.stdin.readline()
    stop_flag = StopFlag()
    activity = Activity("loading", stall_seconds=1.0, phase_seconds=60.0)
    announce_through(activity)
    with tempfile.TemporaryFile() as stacks:
        life = LifeThread(
            parent_pid, activity, stop_flag, stacks=stacks, frozen_seconds=4.0, grace_seconds=GRACE_SECONDS
        )
        life.start()
        with phase("loading a model"):
            time.sleep(float(os.environ.get("LOADING_SECONDS", "0")))
        life.may_exit = False
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        while not stop_flag.wait(0.05):
            advance("training")
            hang_if_asked()
    os._exit(0)


if __name__ == "__main__":
    main()
