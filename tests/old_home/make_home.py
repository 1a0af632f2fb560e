"""Make `home_0_1.tar.xz`, everything a studio of version 0.1.0 leaves on a disk: `python -m tests.old_home.make_home`.

It was run at commit 266a9cf, and the archive is that commit's; README.md says what is in it. The studio is run as its
owner runs it, by the command line and the JSON API alone. Everything is done below one folder of the checkout that is
named relatively, so that no path of the machine is stored.
"""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from tests.exchange.readers.preference_files import pick_a_pic_row, write_pick_a_pic
from tests.old_home.home_contents import checkpoint_facts, judgements_in
from tests.studio_process import ADMIN_TOKEN, PROJECT_ROOT, StudioProcess
from tests.tiny_pipeline import make_tiny_pipeline

FOLDER = Path("old-home")
ARCHIVE = Path(__file__).parent / "home_0_1.tar.xz"
ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
DATASET_OPTIONS = ("--dataset", "export/pick-a-pic", "--output", "trained", "--encode-batch", "2", "--steps", "40")
NOT_KEPT = ("*.log", "*.lock", "*-shm", "*-wal", "tmp")
CONFIGURATION = """\
home = "home"
base_model = "model"
min_votes = 1000

[render]
num_steps = 2
device = "cpu"
dtype = "float32"

[pool]
size = 8
train_prompts = "train.txt"
held_out_prompts = "held-out.txt"

[labeling]
consent = "My votes may be used to train a model."
consent_version = "2026-11"
asks = ["strength", "comment"]
strategy = "overlap"
overlap_every = 2
reports_to_retire = 2
free_prompts = true
reliability = "dawid_skene"
licence = "cc-by-4.0"

[round]
num_steps = 40
rank = 2
batch_pairs = 4
slots_per_pair = 4
evaluate_every = 8
held_out_share = 0.3
health_images = 2
caption_dropout = 0.2
ema_decay = 0.9
slice_seconds = 0.2

[trainer]
period_min_votes = 1000
num_threads = 1
poll_seconds = 0.1
"""


def main() -> None:
    os.chdir(PROJECT_ROOT)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    (FOLDER / "dmpo.toml").write_text(CONFIGURATION)
    colours = ("red", "blue", "green", "pink", "grey", "white", "black", "brown")
    (FOLDER / "train.txt").write_text("".join(f"a {colour} cat\n" for colour in colours))
    (FOLDER / "held-out.txt").write_text("an orange whale\na purple clock\n")
    make_tiny_pipeline(FOLDER / "model")
    session = publish_a_version()
    import_votes()
    cut_a_round_on_a_space()
    dmpo("invite", "create", "--uses", "2", "--days", "3650", "--name", "guests")
    dmpo("export", "pick-a-pic", "export/pick-a-pic", "--held-out", "0")
    dmpo("export", "votes-jsonl", "export/votes", "--with-images", "--comments")
    cut_a_training_on_the_export()
    (FOLDER / "expected.json").write_text(json.dumps({"session": session, **expectations()}, indent=1) + "\n")
    pack()
    shutil.rmtree(FOLDER)


def serve(*, labeling: Mapping[str, Any] = MappingProxyType({}), **settings: Any) -> StudioProcess:
    """The studio with the settings of dmpo.toml; a server and its trainer name base model and home by one path."""
    groups = tomllib.loads(CONFIGURATION)
    groups["labeling"] |= labeling
    groups["pool"] |= {name: str(FOLDER / groups["pool"][name]) for name in ("train_prompts", "held_out_prompts")}
    own: dict[str, Any] = {
        name.upper(): json.dumps(value) if isinstance(value, dict) else value for name, value in groups.items()
    }
    own |= {"BASE_MODEL": FOLDER / own["BASE_MODEL"], **settings}
    return StudioProcess(FOLDER / own.pop("HOME"), port=None, **own)


def dmpo(*arguments: str) -> str:
    """Run a command in the folder, where it finds dmpo.toml."""
    finished = subprocess.run(command(*arguments), cwd=FOLDER, env=environment(), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dmpo_app.cli", *arguments]


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DMPO_")}
    return {**inherited, "PYTHONPATH": str(PROJECT_ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


class Annotator:
    """One session, which has agreed to the campaign's text."""

    def __init__(self, client: httpx.Client, handle: str) -> None:
        self._client = client
        self.session = self.call("POST", "session", json={"handle": handle})
        self._who = {"Authorization": f"Bearer {self.session['token']}"}
        agreed = self.call("POST", "consent", json={"sha256": self.call("GET", "consent")["sha256"]})
        assert not agreed["needed"]

    def call(self, method: str, route: str, **options: Any) -> Any:
        headers = getattr(self, "_who", {})
        return self._client.request(method, f"/api/v1/{route}", headers=headers, **options).raise_for_status().json()

    def shown(self, count: int, *, sets: bool = False) -> list[dict[str, Any]]:
        """So many pairs, or sets to rank; waits until they are made."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            given = self.call("GET", "assignments", params={"count": 10})["assignments"]
            fitting = [one for one in given if bool(one["more"]) == sets]
            if len(fitting) >= count:
                return fitting[:count]
            time.sleep(0.2)
        raise AssertionError(f"no {count} assignments in time")

    def answer(self, assignment: Mapping[str, Any], **answer: Any) -> int:
        body = {"assignment": assignment["id"], "elapsed_ms": 1234, **answer}
        return int(self.call("POST", "votes", json=body)["vote"])

    def judge(self, count: int) -> None:
        """Votes of all kinds, one after another: preferences by what is in the images, ties, skips, remarks."""
        for number, assignment in enumerate(self.shown(count)):
            if number % 5 == 3:
                self.answer(assignment, choice="tie")
            elif number % 7 == 6:
                self.answer(assignment, choice="skip")
            else:
                content = [self._client.get(assignment[side]).raise_for_status().content for side in ("left", "right")]
                choice = (
                    "left" if hashlib.sha256(content[0]).digest() > hashlib.sha256(content[1]).digest() else "right"
                )
                remark = {"strength": "clearly", "comment": "the colours, mostly"} if number % 4 == 0 else {}
                self.answer(assignment, choice=choice, **remark)


def publish_a_version() -> dict[str, str]:
    """Votes, an undone and a withdrawn one, a report, a gold pair, a proposed prompt; a round; a contact sheet.

    Returns the session of an annotator.
    """
    with serve() as studio, studio.client() as client:
        studio.wait_for(lambda status: status["pool"] >= 8, seconds=300)
        people = [Annotator(client, name) for name in ("anna", "ben", "cleo")]
        for annotator in people:
            annotator.judge(9)
        withdrawn, undone = (people[0].answer(one, choice="left") for one in people[0].shown(2))
        people[0].call("POST", f"votes/{withdrawn}/withdraw")
        people[0].call("DELETE", f"votes/{undone}")
        [broken] = people[1].shown(1)
        people[1].call("POST", "reports", json={"assignment": broken["id"], "reason": "broken", "text": "all grey"})
        people[2].call("POST", "prompts", json={"text": "a teal pot"})
        client.put("/api/v1/gold/1", json={"answer": "a"}, headers=ADMIN).raise_for_status()
        client.post("/api/v1/rounds", headers=ADMIN).raise_for_status()
        studio.wait_for(lambda status: status["live_version"] == 1, seconds=300)
        body = {"prompt": "an orange whale", "seed": 3, "versions": [0, 1]}
        client.post("/api/v1/render", json=body).raise_for_status()
        wait_for(lambda: whole_rows(client) == 2)
        assert studio.stop(seconds=300) == 0
        session: dict[str, str] = people[0].session
        return session


def whole_rows(client: httpx.Client) -> int:
    """Rows of the contact sheet that have all their images."""
    rows = client.get("/api/v1/contact-sheet").json()["rows"]
    return sum(len(row["images"]) == len(rows[0]["images"]) > 1 for row in rows)


def import_votes() -> None:
    rows = [pick_a_pic_row(index, caption=f"a lilac lamp {index}") for index in range(3)]
    write_pick_a_pic(FOLDER / "imported.parquet", rows)
    dmpo("import", "imported.parquet", "--yes", "--encode")
    (FOLDER / "imported.parquet").unlink()


def cut_a_round_on_a_space() -> None:
    """Public mode with a backup, as a Space has it; sets are ranked; the server is stopped amid a round."""
    backup = {"BACKUP__URL": FOLDER / "backup", "BACKUP__LOG_SECONDS": 0.5}
    studio = serve(labeling={"ranking_size": 3}, HOST="127.0.0.1", HOSTING__MODE="cpu", **backup)
    studio.environment["SPACE_ID"] = "somebody/studio"
    with studio, studio.client() as client:
        people = [Annotator(client, name) for name in ("dora", "emil")]
        for annotator in people:
            for number, assignment in enumerate(annotator.shown(2, sets=True)):
                annotator.answer(assignment, order=[[2, 0, 1], [1, 2, 0]][number])
        wait_for(lambda: any(FOLDER.glob("backup/snapshots/*/log/*.gz")))
        client.post("/api/v1/rounds", headers=ADMIN).raise_for_status()
        wait_for(lambda: is_past_a_look(FOLDER / "home/rounds/2"))
        assert studio.stop(seconds=300) == 0


def cut_a_training_on_the_export() -> None:
    cut = ("--seed", "1", "--set", "round.slice_seconds=0.1")
    with subprocess.Popen(command("train", *DATASET_OPTIONS, *cut), cwd=FOLDER, env=environment()) as process:
        wait_for(lambda: any(map(is_past_a_look, FOLDER.glob("trained/work/runs/*"))))
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 130


def is_past_a_look(folder: Path) -> bool:
    """There is a checkpoint, and it keeps the adapter that did best on the held-out pairs so far."""
    return (folder / "checkpoint.safetensors").exists() and checkpoint_facts(folder)["best"] is not None


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "not within 300 s"
        time.sleep(0.005)


def expectations() -> dict[str, Any]:
    """The contents of the folder, as that version has them."""
    [training] = FOLDER.glob("trained/work/runs/*")
    with closing(sqlite3.connect(FOLDER / "home/studio.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in sorted(tables)}
    return {
        "dataset_options": [*DATASET_OPTIONS, "--seed", "1", "--set", "round.slice_seconds=0.1"],
        "rows": rows,
        "round_step": checkpoint_facts(FOLDER / "home/rounds/2")["step"],
        "training_step": checkpoint_facts(training)["step"],
        "status": dmpo("status"),
        "judgements": {name: judgements_in(FOLDER / "export" / name) for name in ("pick-a-pic", "votes")},
    }


def pack() -> None:
    """The archive. xz sees that most files of the backup are those of the home; zip would hold them twice."""
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for path in sorted(FOLDER.rglob("*")):
            relative = path.relative_to(FOLDER)
            kept = not any(Path(part).match(pattern) for part in relative.parts for pattern in NOT_KEPT)
            if path.is_file() and kept:
                archive.add(path, relative.as_posix(), filter=nobodys)


def nobodys(file: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the owner that a file has on this machine."""
    file.uid = file.gid = 0
    file.uname = file.gname = ""
    return file


if __name__ == "__main__":
    main()
