"""Of the paths in a message browsers see the last names alone; everything else stays."""

import random
from pathlib import Path

import pytest

from dmpo_app.web.shown_messages import without_paths

FOLDERS = (
    "home", "ann", "a b", "c d", "My Documents", "Ünïcode", "写真", "x-y_z", "v1.2", "data+more", "with four words in",
    "~tilde", "@at", "50%", "o=p", "#hash", "!bang", "$HOME", "&and", "été 2026",
)  # fmt: skip
NAMES = ("studio.db", "model_index.json", "écran.png", "x", "config", "a-b_c.tar.gz", ".hidden", "写真.png")
SENTENCES = (
    "cannot read {}",
    "cannot read {}: No such file or directory",
    "{} is not there",
    "[Errno 13] Permission denied: '{}'",
    '[Errno 2] No such file: "{}"',
    "the home ({}) cannot be used",
    "could not load PosixPath('{}'), is it damaged?",
    "no file {}; expected TOML",
    "path={}",
    "it failed:{}",
    "see `{}` for more",
    "<{}>",
    "wrote {}, then stopped",
)  # fmt: skip


def made_up(rng: random.Random, style: str) -> tuple[str, list[str], str]:
    folders, name = rng.choices(FOLDERS, k=rng.randint(1, 5)), rng.choice(NAMES)
    separator = "/" if style in ("posix", "file", "sqlite") else "\\\\" if style == "repr" else "\\"
    start = {
        "posix": "/",
        "windows": "C:\\",
        "repr": "D:\\\\",
        "unc": "\\\\",
        "file": "file:///",
        "sqlite": "sqlite:////",
    }
    parts = [folder.replace(" ", "%20") for folder in folders] if style in ("file", "sqlite") else folders
    if style == "unc":
        parts = ["server", "share", *parts]
    return start[style] + separator.join([*parts, name]), parts, name


@pytest.mark.parametrize("style", ["posix", "windows", "repr", "unc", "file", "sqlite"])
def test_of_any_path_in_any_sentence_the_last_name_is_left(style: str) -> None:
    rng = random.Random(style)
    for _ in range(1500):
        path, folders, name = made_up(rng, style)
        sentence = rng.choice(SENTENCES)
        shown = without_paths(sentence.format(path))
        assert shown == sentence.format(f"…/{name}"), (path, shown)
        assert folders


@pytest.mark.parametrize(
    "text",
    [
        "a side and/or a tie",
        "1/2 of the votes, 3/4 of the pairs",
        "ask for another: GET and POST /api/v1/consent",
        "see /api/v1/docs/index",
        "'/api/v1/exports/votes-csv' is a route",
        "https://huggingface.co/user/name is behind terms; hf://buckets/user/name and s3://bucket/folder/x",
        "postgresql://user@host/name cannot be reached",
        "stabilityai/stable-diffusion-2-1 is not on this machine",
        "left/right/tie",
        "at 12:30, 2026/11/30",
        "it is 50 % / 50 %",
        "application/json; text/html",
        "n/a",
        "",
    ],
)
def test_words_addresses_and_paths_of_the_api_stay(text: str) -> None:
    assert without_paths(text) == text


def test_two_paths_in_a_sentence_keep_the_words_between(tmp_path: Path) -> None:
    text = "cannot move /srv/a b/c.db to /mnt/d e/f.db and write /x/y"
    assert without_paths(text) == "cannot move …/c.db to …/f.db and write …/y"
    assert without_paths("use /srv/votes and/or /mnt/x/y") == "use …/votes and/or …/y"
    assert without_paths("read /srv/votes 3/4 times") == "read …/votes 3/4 times"


@pytest.mark.parametrize("name", ["a (b), c; d", "it's", 'so-called "data"', "[old] {new}", "a: b", "tab\tin"])
def test_a_folder_that_is_known_is_hidden_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / "secret place" / name
    home.mkdir(parents=True)
    monkeypatch.setenv("DMPO_HOME", str(home))
    for text in (f"{home} cannot be used", f"cannot read {home}/images/ab/x.png (gone)", f"[Errno 13]: '{home}/y'"):
        shown = without_paths(text)
        assert "secret" not in shown, shown
        assert "images" not in shown, shown
    monkeypatch.delenv("DMPO_HOME")
    monkeypatch.chdir(home)
    assert "secret" not in without_paths(f"cannot read {home}/images/ab/x.png (gone)")


def test_a_folder_beside_a_known_one_is_hidden_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_HOME", "/home/ann")
    assert without_paths("cannot read /home/anna/x/y.db") == "cannot read …/y.db"
    assert without_paths("cannot read /home/ann.bak/x/y.db") == "cannot read …/y.db"


def test_long_texts_are_shortened_in_no_time() -> None:
    for text in ("/a b " * 20_000, "/a/" * 20_000, "a b c d e f g " * 20_000, "'/" * 20_000, "\\" * 40_000):
        without_paths(text[:40_000])
