"""The `dmpo` command in a process with less than it needs: `python -m tests.limited_cli LIMIT serve ...`.

LIMIT is a name of `resource` without its RLIMIT_ and a number, such as NOFILE=24; NPROC takes effect on a user without
rights alone, whose process it becomes then, and leaves it no thread besides those it has.
"""

import os
import resource
import sys

from dmpo_app.cli.__main__ import run

NOBODY = 61234

if __name__ == "__main__":
    name, _, number = sys.argv[1].partition("=")
    if name == "NPROC":
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    limit = int(number)
    resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    run(sys.argv[2:])
