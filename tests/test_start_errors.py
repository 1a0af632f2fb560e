"""Starts that fail, in real processes: each ends with a sentence that says what to do, and without a traceback."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dmpo_app import Studio
from dmpo_app.errors import SetupError
from dmpo_app.server.start_errors import LOG_NAME, start_errors_explained
from dmpo_app.settings import Settings
from tests.patience import PATIENCE
from tests.preloaded_process import PreloadedPython
from tests.studio_process import PROJECT_ROOT

as_root = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root may become another user")
Arrange = Callable[[Path], Mapping[str, Any]]
"""Prepares a folder, and returns DMPO_* settings without their prefix; its folder `home` is the home."""


def failed_start(folder: Path, settings: Mapping[str, Any], module: str = "dmpo_app.cli", *words: str) -> str:
    """The last line of a start that has failed; checks that it is a sentence."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
    own = {"HOME": folder / "home", "PORT": 0, "ADMIN_TOKEN": "an-administrators-token-for-tests", **settings}
    environment = inherited | {f"DMPO_{name}": str(value) for name, value in own.items()}
    process = PreloadedPython(
        module, [*words, "serve"], environment=environment, stdout=folder / "out.log", stderr=folder / "errors.log"
    )
    try:
        code = process.wait(PATIENCE)
    finally:
        process.kill()
    complaint = (folder / "errors.log").read_text()
    assert code in (1, 2), complaint
    return sentence_of(complaint)


def sentence_of(complaint: str) -> str:
    assert "Traceback" not in complaint
    last = complaint.rstrip().splitlines()[-1]
    assert last.startswith("error: "), complaint
    return last


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def database(*statements: str) -> Arrange:
    def arrange(folder: Path) -> dict[str, Any]:
        (folder / "home").mkdir()
        with closing(sqlite3.connect(folder / "home" / "studio.db")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return {}

    return arrange


def in_home(name: str, content: str | bytes) -> Arrange:
    def arrange(folder: Path) -> dict[str, Any]:
        written(folder / "home" / name, content)
        return {}

    return arrange


def folder_in_home(name: str) -> Arrange:
    def arrange(folder: Path) -> dict[str, Any]:
        (folder / "home" / name).mkdir(parents=True)
        return {}

    return arrange


def setting(**settings: Any) -> Arrange:
    return lambda _: settings


def setting_of_file(name: str, content: str) -> Arrange:
    return lambda folder: {name: written(folder / "file", content)}


def model(index: str) -> Arrange:
    return lambda folder: {"BASE_MODEL": written(folder / "model" / "model_index.json", index).parent}


HEAD = "CREATE TABLE alembic_version (version_num VARCHAR)"
KINDS: dict[str, tuple[Arrange, str]] = {
    "a host of elsewhere": (setting(HOST="203.0.113.9"), "DMPO_HOST"),
    "a host that is a url": (setting(HOST="http://127.0.0.1"), "DMPO_HOST"),
    "a host with a port": (setting(HOST="127.0.0.1:7860"), "DMPO_HOST"),
    "a host longer than any": (setting(HOST="a" * 300), "DMPO_HOST"),
    "a home that is a file": (lambda folder: {"HOME": written(folder / "file", "")}, "--home"),
    "a home where none can be": (setting(HOME="/proc/none/home"), "--home"),
    "a home with too long a name": (setting(HOME="/tmp/" + "a" * 300), "--home"),
    "a database that is text": (in_home("studio.db", "hello " * 1000), "DMPO_HOME"),
    "a database cut to its head": (in_home("studio.db", b"SQLite format 3\0" + bytes(80)), "DMPO_HOME"),
    "a database that is a folder": (folder_in_home("studio.db"), "DMPO_HOME"),
    "a database of a newer version": (database(HEAD, "INSERT INTO alembic_version VALUES ('9999')"), "update"),
    "a database of another program": (database("CREATE TABLE votes (id INTEGER)"), "another program"),
    "a database without its tables": (
        database(HEAD, "INSERT INTO alembic_version VALUES ('0009')"),
        "Is it of another program?",
    ),
    "postgresql that is down": (setting(DATABASE_URL="postgresql://me:secret@127.0.0.1:9/x"), "is the server running"),
    "no address of a database": (setting(DATABASE_URL="postgresql://me:secret@host:port/x"), "postgresql://user"),
    "a storage of unknown kind": (setting(BACKUP__URL="gopher://x/y"), "gopher"),
    "a model that is not there": (setting(BASE_MODEL="/no/such/model"), "/no/such/model"),
    "a model that is not there, and its setting": (setting(BASE_MODEL="/no/such/model"), "DMPO_BASE_MODEL"),
    "a model cut off": (model("{"), "model_index.json"),
    "a model of nothing": (model("[]"), "model_index.json"),
    "a value that is no number": (setting(MIN_VOTES="many"), "DMPO_MIN_VOTES='many'"),
    "a list that is none": (setting(POOL__TAGS="[animals"), "DMPO_POOL__TAGS"),
    "a setting there is not": (setting(ROUND__RNAK=8), "DMPO_ROUND__RNAK"),
    "prompts that are a folder": (setting(POOL__TRAIN_PROMPTS="/tmp"), "prompt file /tmp"),
    "starter pairs that are none": (setting_of_file("POOL__STARTER_PAIRS", "hello"), "DMPO_POOL__STARTER_PAIRS"),
    "a consent that is not there": (setting(LABELING__CONSENT="/no/text.md"), "DMPO_LABELING__CONSENT"),
    "a key that is none": (in_home("secret.key", "short"), "secret.key"),
    "a key that is a folder": (folder_in_home("secret.key"), "secret.key"),
    "a mode of other hardware": (setting(HOSTING__MODE="zerogpu"), "DMPO_HOSTING__MODE"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_fails_ends_with_a_sentence(kind: str, tmp_path: Path) -> None:
    arrange, words = KINDS[kind]
    sentence = failed_start(tmp_path, arrange(tmp_path))
    assert words in sentence
    assert "secret@" not in sentence


def test_a_port_in_use_is_told_with_another_one(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        sentence = failed_start(tmp_path, {"PORT": port})
    assert "another program" in sentence
    assert str(port) in sentence
    assert "--port" in sentence


@pytest.mark.parametrize("content", ["port = = 3", b"\xff\xfe\0"])
def test_a_file_of_settings_that_is_not_understood_is_named(content: str | bytes, tmp_path: Path) -> None:
    file = written(tmp_path / "mine.toml", content)
    assert "mine.toml" in failed_start(tmp_path, {}, "dmpo_app.cli", "--config", str(file))


@as_root
@pytest.mark.parametrize(("limit", "words"), [("NOFILE=12", "ulimit -n"), ("NPROC=0", "ulimit -u")])
def test_a_start_with_too_little_of_the_system_names_the_limit(limit: str, words: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:  # the user of that process has to come here
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    assert words in failed_start(tmp_path, {}, "tests.limited_cli", limit)


BROKEN = {
    "typer": "raise ImportError('no typer')",
    "sqlalchemy": "raise ModuleNotFoundError('none', name='sqlalchemy')",
    "numpy": "raise OSError('libcudart.so.12: cannot open shared object file')",
}


@pytest.mark.parametrize("package", BROKEN)
def test_a_package_that_does_not_load_is_named_with_how_to_get_it(package: str, tmp_path: Path) -> None:
    written(tmp_path / package / "__init__.py", BROKEN[package])
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT_ROOT}",
        "DMPO_HOME": str(tmp_path / "home"),
    }
    result = subprocess.run(
        [sys.executable, str(PROJECT_ROOT / "app.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "make" in sentence_of(result.stderr)


@pytest.mark.parametrize("value", ["::::garbage", "http://:3128", "ftp://proxy:1", "http://proxy:port", "http://[::1"])
def test_a_proxy_that_is_none_is_named_without_what_it_says(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(SetupError, match="HTTPS_PROXY is no address") as refusal, start_errors_explained():
        raise RuntimeError("of a package that reads it")
    assert value not in str(refusal.value)


@pytest.mark.parametrize("value", ["http://me:secret@proxy:3128", "proxy:3128", "socks5h://[::1]:9"])
def test_a_proxy_that_may_be_one_is_not_blamed(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(SetupError, match="RuntimeError"), start_errors_explained(tmp_path):
        raise RuntimeError("something else")


def test_an_error_that_nobody_foresaw_is_told_with_its_place_and_kept_in_a_log(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=rf"ZeroDivisionError: .*{LOG_NAME}"), start_errors_explained(tmp_path):
        _ = 1 / 0
    assert "Traceback" in (tmp_path / LOG_NAME).read_text()
    assert (tmp_path / LOG_NAME).stat().st_mode & 0o077 == 0
    with pytest.raises(SetupError, match="DMPO_HOME"), start_errors_explained(tmp_path):
        (tmp_path / LOG_NAME / "file").write_text("")
    with pytest.raises(SetupError, match="too little memory"), start_errors_explained():
        raise MemoryError


def test_a_start_from_python_raises_what_the_command_says(tmp_path: Path) -> None:
    written(tmp_path / "home" / "secret.key", "short")
    with pytest.raises(SetupError, match="delete it"):
        Studio(Settings(home=tmp_path / "home", port=0)).launch(block=False)
