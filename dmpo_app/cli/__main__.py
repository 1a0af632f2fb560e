"""`python -m dmpo_app.cli`: the `dmpo` command where no script is installed."""

from dmpo_app.cli.main import app

if __name__ == "__main__":
    app()
