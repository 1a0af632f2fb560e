"""`python -m dmpo_app.cli`: the `dmpo` command where no script is installed, as under torchrun."""

from dmpo_app.cli.main import app

if __name__ == "__main__":
    app()
