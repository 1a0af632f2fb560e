"""A parent with nine threads that forks a real trainer: `python -m tests.training.parent_to_kill SETTINGS_FILE`.

Its first line is the trainer's process number, the others are what the trainer says. Linux tells the child of each of
its threads' deaths, so that one kill is a burst of signals.
"""

import os
import sys
import threading
from pathlib import Path

from dmpo_app.training.process import trainer_process


def main(settings_file: Path) -> None:
    settings, (to_child, from_parent), (from_child, to_parent) = settings_file.read_bytes(), os.pipe(), os.pipe()
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.dup2(to_child, 0)
        os.dup2(to_parent, 1)
        os.closerange(3, 64)
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - a forked process from a server has none
        os._exit(trainer_process.main(["--parent-pid", str(parent_pid), "--owner", "forked"]))
    for end in (to_child, to_parent):
        os.close(end)
    for _ in range(8):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    os.write(from_parent, settings + b"\n")
    sys.stdout.write(f"{pid}\n")
    with os.fdopen(from_child, encoding="utf-8") as said:
        for line in said:
            sys.stdout.write(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
