"""The entry of a Hugging Face Space, and of anyone who types `python app.py`. `dmpo serve` is the same with options."""

from dmpo_app.cli.main import app

if __name__ == "__main__":
    app(["serve"])
