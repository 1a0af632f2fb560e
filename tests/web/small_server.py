"""The API alone on a port, in a process of its own: `python -m tests.web.small_server HOME PORT`."""

import sys
from pathlib import Path

import uvicorn

from dmpo_app.io.processes import raise_open_files_limit
from dmpo_app.web import create_router
from dmpo_app.web.router import build_api_app
from tests.web.api_studio import open_studio


def main(home: Path, port: int) -> None:
    """Serve until the process is ended."""
    raise_open_files_limit()
    with open_studio(home) as studio:
        app = build_api_app(create_router(studio.services), studio.services)
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
