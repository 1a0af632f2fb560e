"""The entry of the `dmpo` command, of `python -m dmpo_app.cli` and of app.py.

Imports no package before it can say that one is missing.
"""

import sys


def run(arguments: list[str] | None = None) -> None:
    """Run the `dmpo` command; exit with a sentence where a package that it needs does not load."""
    try:
        from dmpo_app.cli.main import app

        app(arguments)
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        if sys.version_info < (3, 11):  # noqa: UP036 - nothing else keeps a checkout from being started with it
            sys.exit(f"error: DMPO Studio needs Python 3.11, 3.12 or 3.13; this is {version} ({sys.executable})")
        sys.exit(
            f"error: {sys.executable} lacks a package of DMPO Studio ({error}); in a checkout `make run` installs what "
            "is needed and starts it, elsewhere `pip install dmpo-studio` does"
        )


if __name__ == "__main__":
    run()
