"""The entry of a Hugging Face Space, and of anyone who types `python app.py`. `dmpo serve` is the same with options."""

from dmpo_app.cli.__main__ import run

if __name__ == "__main__":
    run(["serve"])
