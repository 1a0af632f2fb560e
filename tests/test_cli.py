"""The `dmpo` command on a real home with a tiny base model."""

import json
import random
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import dmpo_app
from dmpo_app.cli.main import app
from dmpo_app.diffusion.families.components import UNET_ATTENTION
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.diffusion.lora import LoraSpec
from dmpo_app.domain.campaign import ReportReason
from dmpo_app.domain.judging import VerdictAction
from dmpo_app.domain.vote import Choice
from dmpo_app.labeling import Sealer, load_or_create_key
from dmpo_app.server.wiring import open_lineage
from dmpo_app.settings import Settings
from dmpo_app.store import Store
from tests.adapters import random_adapter
from tests.judging.judged_versions import PROMPTS, judge, judging, publish
from tests.rendering.rendering_studio import RenderingStudio
from tests.store.store_data import new_pair
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def on_a_home_of_its_own(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.txt").write_text("a red cat\na blue house\n")
    (tmp_path / "held-out.txt").write_text("a green tree\n")
    monkeypatch.setenv("DMPO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DMPO_BASE_MODEL", str(model))
    monkeypatch.setenv("DMPO_POOL__TRAIN_PROMPTS", str(tmp_path / "train.txt"))
    monkeypatch.setenv("DMPO_POOL__HELD_OUT_PROMPTS", str(tmp_path / "held-out.txt"))
    monkeypatch.setenv("DMPO_RENDER__NUM_STEPS", "2")
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_status_and_versions_of_a_fresh_home() -> None:
    code, output = run("status")
    assert code == 0
    assert "0, 32 until the next round" in output
    code, output = run("adapters", "list")
    assert code == 0
    assert "the base model" in output


def test_a_prompt_is_rendered_to_files_for_every_seed(tmp_path: Path) -> None:
    code, output = run("render", "a red cat", "--seed", "3", "--count", "2", "--output", str(tmp_path / "out"))
    assert code == 0, output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["seed-3-version-0.png", "seed-4-version-0.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("render", "a cat", "--versions", "0,newest"), "newest"),
        (("render", "a cat", "--versions", "7"), "version 7"),
        (("adapters", "live", "7"), "version 7"),
        (("adapters", "export", "7", "out.safetensors"), "version 7"),
        (("train", "--once"), "at least 2 votes"),
        (("simulate", "sour"), "sour"),
        (("simulate", "warm", "--url", "http://127.0.0.1:9"), "dmpo serve"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    code, output = run(*arguments)
    assert code == 1
    assert words in " ".join(output.split())
    assert "Traceback" not in output


def test_a_bad_setting_is_named_as_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_MIN_VOTES", "none")
    code, output = run("status")
    assert code == 2
    assert "DMPO_MIN_VOTES='none'" in output


def test_what_is_refused_is_named_once_and_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_ROUND__TARGET_MODULES", "everything")
    monkeypatch.setenv("DMPO_LABELING__QUESTIONS", '["fit"]')
    monkeypatch.setenv("DMPO_ROUND__RNAK", "8")
    code, output = run("status")
    output = " ".join(output.split())
    assert code == 2
    assert "DMPO_ROUND__TARGET_MODULES='everything': Input should be 'auto', 'attention' or 'wide'" in output
    assert "DMPO_LABELING__...: rounds would wait forever" in output
    assert "DMPO_ROUND__RNAK='8': Extra inputs are not permitted" in output
    for name in ("DMPO_ROUND__TARGET_MODULES", "DMPO_LABELING__QUESTIONS", "DMPO_ROUND__RNAK"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DMPO_DATABASE_URL", "postgresql://user:very-secret@host/studio")
    monkeypatch.setenv("DMPO_BACKUP__URL", "s3://bucket/very-secret")
    code, output = run("status")
    output = " ".join(output.split())
    assert code == 2
    assert "Set one of the two" in output
    assert "very-secret" not in output


def test_changed_settings_are_shown_with_their_defaults_and_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text("min_votes = 9\n")
    code, output = run("settings", "--changed", "--home", "here", "--config", "my.toml")
    assert code == 0, output
    rows = {words[0]: words[1:] for words in (line.split() for line in output.splitlines())}
    assert rows["DMPO_HOME"][0::2] == ["here", "option"]
    assert rows["DMPO_MIN_VOTES"] == ["9", "32", "file", "my.toml"]
    assert rows["DMPO_RENDER__NUM_STEPS"] == ["2", "None", "environment"]
    assert not {"DMPO_PORT", "DMPO_ROUND__BETA"} & rows.keys()


def test_the_help_groups_the_commands_and_waits_for_nothing_heavy() -> None:
    code, output = run("--help")
    assert code == 0
    panels = [line.split()[1] for line in output.splitlines() if line.startswith("╭")]
    assert panels[-6:] == ["Run", "Train", "Data", "Campaign", "Models", "Maintenance"]
    heavy = ("torch", "gradio", "diffusers", "sqlalchemy", "fastapi", "pydantic", "numpy", "PIL", "httpx")
    program = "import sys, dmpo_app.cli.main; print([name for name in sys.argv[1:] if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_version_is_printed_and_a_missing_command_is_said() -> None:
    assert run("--version") == (0, f"{dmpo_app.__version__}\n")
    code, output = run("--home", "here")
    assert code == 2
    assert "Missing command" in output


def test_the_scorers_are_listed_with_their_licences() -> None:
    code, output = run("scorers")
    assert code == 0, output
    for name in ("pickscore", "clip", "hpsv2", "aesthetic", "imagereward", "pocket-fidelity", "warmth"):
        assert name in output
    assert "Apache-2.0" in output


def test_doctor_finds_nothing_wrong_here_and_says_what_is_missing() -> None:
    code, output = run("doctor", "--home", "/proc/nowhere", "--base-model", "/does/not/exist")
    assert code == 1
    assert "/proc/nowhere cannot be written to" in output
    assert "/does/not/exist" in output
    code, output = run("doctor")
    assert code == 0, output
    assert "stable_diffusion" in output


def test_a_version_is_exported_for_diffusers_and_in_kohyas_naming(tmp_path: Path, model: Path) -> None:
    studio = RenderingStudio.open(tmp_path / "home", model)
    spec = LoraSpec(4, 6.0, UNET_ATTENTION)
    studio.publish(random_adapter(load_denoiser(str(model), device="cpu").module, 1, spec))
    studio.store.close()
    for file_format in ("diffusers", "kohya"):
        code, output = run("adapters", "export", "1", str(tmp_path / file_format), "--format", file_format)
        assert code == 0, output
    plain, kohya = load_file(tmp_path / "diffusers"), load_file(tmp_path / "kohya")
    assert all(key.startswith("unet.") and ".lora_" in key for key in plain)
    assert all(key.startswith("lora_unet_") for key in kohya)
    assert len(kohya) == len(plain) * 3 // 2  # down, up and alpha for every A and B
    assert {float(tensor) for key, tensor in kohya.items() if key.endswith(".alpha")} == {spec.lora_alpha}
    code, output = run("adapters", "export", "1", str(tmp_path / "other"), "--format", "ckpt")
    assert code == 1
    assert "ckpt" in output


def test_versions_are_listed_with_their_states_and_ranked_by_duels(tmp_path: Path, model: Path) -> None:
    code, output = run("board")
    assert code == 0, output
    assert "No duel has been judged yet." in output
    assert "Nothing has been decided" in run("verdicts")[1]
    with open_lineage(Settings.load()) as lineage:
        store, base = lineage.store, lineage.base
        store.prompts.ensure(PROMPTS, held_out=True)
        publish(store, base)
        publish(store, base, is_held=True)
        judge(store, base, store.annotators.ensure("anna"), 1, 2, count=12)
        assert judging(store, base, "hold").decide() is VerdictAction.REJECTED
        publish(store, base, is_held=True)
    # A narrow terminal breaks the words at spaces.
    states = [words.rpartition("UTC ")[2] for words in re.split(r"\s\*?\s*[123] +[012] ", run("adapters", "list")[1])]
    assert [" ".join(words.split()) for words in states[-2:]] == ["held back; proven worse", "held back, being judged"]
    code, output = run("board")
    assert code == 0, output
    assert "12 judgements of 1 annotator on 12 prompts" in output
    rows = json.loads(run("board", "--json")[1])["rows"]
    assert [row["version"] for row in rows] == [1, 2]
    assert "Version 2 stays held back: worse than version 1 by people's duels" in run("verdicts")[1]
    [verdict] = json.loads(run("verdicts", "--json")[1])
    assert (verdict["action"], verdict["numbers"]["num_judgements"]) == ("rejected", 12)


def test_a_study_is_planned_summed_up_exported_and_closed(tmp_path: Path, model: Path) -> None:
    code, output = run("study", "create", "first", "7")
    assert code == 1
    assert "there is no version 7" in " ".join(output.split())
    with open_lineage(Settings.load()) as lineage:
        store, base = lineage.store, lineage.base
        store.prompts.ensure(PROMPTS, held_out=True)
        publish(store, base)
        assert run("study", "create", "[b]first", "1", "--raters", "1", "--pairs", "2", "--question", "overall")[0] == 0
        judge(store, base, store.annotators.ensure("anna"), 1, 0, count=2, study_id=1)
    assert "[b]first" in run("study", "list")[1]
    words = " ".join(run("study", "show", "[b]first")[1].split())
    assert words.startswith("Wins of version 1 against the base model, by the majority of 1 people a pair: question")
    assert "overall 2 2 0 0 100.0%" in words
    code, output = run("study", "export", "[b]first", str(tmp_path / "table.csv"))
    assert code == 0, output
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 2
    assert run("study", "close", "[b]first")[0] == 0
    assert "closed" in run("study", "list")[1]
    assert "there are: '[b]first'" in " ".join(run("study", "show", "second")[1].split())


def test_doctor_says_when_the_denoiser_cannot_be_had_in_fewer_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_RENDER__QUANTIZE", "nf4")
    monkeypatch.setenv("DMPO_RENDER__DEVICE", "cpu")
    code, output = run("doctor")
    assert code == 1
    assert "bitsandbytes and a CUDA GPU" in " ".join(output.split())


def test_links_of_invitation_are_printed_and_open_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_LABELING__ACCESS", "invite")
    arguments = ("invite", "create", "--uses", "2", "--days", "3", "--count", "2", "--name", "class [a]")
    code, output = run(*arguments, "--url", "https://studio.example/")
    assert code == 0, output
    links = output.split()
    assert [link.split("=")[0] for link in links] == ["https://studio.example/?invite"] * 2
    monkeypatch.setenv("DMPO_ROOT_PATH", "/studio")
    monkeypatch.setenv("DMPO_HOST", "::1")
    [own] = [line for line in run("invite", "create")[1].split() if "?" in line]
    assert own.startswith("http://[::1]:7860/studio/?invite=")
    monkeypatch.setenv("DMPO_IDENTITY__PUBLIC_URL", "https://studio.example")
    [own] = [line for line in run("invite", "create")[1].split() if "?" in line]
    assert own.startswith("https://studio.example/?invite=")
    with Store.open(tmp_path / "home") as store:
        sealer = Sealer(load_or_create_key(tmp_path / "home"))
        for link in links:
            store.invites.accept(sealer.open_invite(link.split("=", 1)[1]), "guest")
        assert [act.actor for act in store.audit.list()] == ["cli"] * 4
    listed = run("invite", "list")[1]
    assert "class [a] 1" in listed
    assert listed.count(" UTC") == 4


def test_the_texts_that_people_agreed_to_can_be_read(tmp_path: Path) -> None:
    words = "We keep [your] votes.\nFor research."
    with Store.open(tmp_path / "home") as store:
        sha256 = store.consents.agree(store.annotators.ensure("Ada").id, words, "2026-01").text_sha256
    code, output = run("consent", "list")
    assert code == 0
    assert "2026-01" in output
    assert sha256[:12] in output
    assert run("consent", "show", sha256[:12]) == (0, f"{words}\n")
    code, output = run("consent", "show", "abcd")
    assert code == 1
    assert "dmpo consent list" in output


def test_the_quality_of_votes_is_shown_and_written_to_files(tmp_path: Path) -> None:
    code, output = run("quality")
    assert code == 0, output
    assert "nothing to compare" in output
    table, whole = tmp_path / "annotators.csv", tmp_path / "quality.json"
    code, output = run("quality", "--csv", str(table), "--json", str(whole))
    assert code == 0, output
    assert table.read_text().startswith("annotator,votes,agreement")
    assert json.loads(whole.read_text())["votes"] == 0


def test_an_annotator_is_struck_and_restored_and_reports_are_cleared(tmp_path: Path) -> None:
    with open_lineage(Settings.load()) as lineage:
        store, base = lineage.store, lineage.base
        store.pairs.add_many(base, [new_pair(number) for number in range(2)])
        who = store.annotators.ensure("<b>Ada</b>")
        shown = store.assignments.issue(base, who.id, 2, rng=random.Random(0), lifetime=timedelta(hours=1)).result()
        store.votes.record(shown[0].id, who.id, Choice.LEFT, 900)
        store.reports.add(shown[1].id, who.id, ReportReason.BROKEN, "[red]black[/]")
    code, said = run("annotators", "strike", who.public_id)
    assert (code, "1 votes, 1 open reports, 0 prompts" in said) == (0, True)
    assert who.public_id in run("annotators", "struck")[1]
    assert "[red]black[/]" in run("reports", "list")[1]
    assert run("annotators", "restore", who.public_id)[0] == 0
    assert who.public_id not in run("annotators", "struck")[1]
    assert "1 reports cleared" in run("reports", "clear", "--annotator", who.public_id)[1]
    assert "0 reports cleared" in run("reports", "clear")[1]
    code, said = run("annotators", "strike", "nobody")
    assert (code, "no such annotator" in said) == (1, True)
    with open_lineage(Settings.load()) as lineage:
        acts = [(act.actor, act.act) for act in lineage.store.audit.list()]
    assert acts == [("cli", "clear_reports"), ("cli", "restore_annotator"), ("cli", "strike_annotator")]


@pytest.mark.parametrize("token", ["x", "a-short-token15", "aaaaaaaaaaaaaaaaaaaaaaaa", "0101010101010101"])
def test_an_administrators_token_that_could_be_guessed_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("DMPO_ADMIN_TOKEN", token)
    code, said = run("serve", "--port", "0")
    assert (code, "DMPO_ADMIN_TOKEN could be guessed" in said, "openssl rand" in said) == (1, True, True)
    assert "Traceback" not in said


def test_every_setting_taste_and_objective_is_listed() -> None:
    assert "DMPO_ROUND__BETA" in run("settings")[1]
    assert "warm" in run("simulate", "list")[1]
    listed = run("objectives")[1]
    assert "KL(Bern(p) || Bern(q))" in listed
    assert all(name in listed for name in ("dmpo", "cdpo", "ipo", "alpha-divergence", "sft", "kto", "dspo", "mapo"))


def test_an_objective_that_does_not_exist_ends_the_trainer_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMPO_ROUND__OBJECTIVE", "ppo")
    code, output = run("train")
    assert code == 1
    assert "ppo" in output
    assert "dmpo, dpo" in output


def test_prompts_are_imported_listed_split_and_retired(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("caption,Category\na violin in snow,Music\na red cat,x\na green tree!,x\n,x\n")
    for arguments, words in (
        (("import", "more.csv", "--dry-run"), ("1 prompts would be added: 1 to train on, 0 held out", "1 are there")),
        (("import", "more.csv", "--tag", "new"), ("1 prompts added", "4: empty", "held-out prompt: 'a green tree!'")),
        (("import", "more.csv"), ("0 prompts added", "2 are there already")),
        (("list", "vio"), ("a violin in snow", "music new", "1 of 1")),
        (("retire", "--tagged", "Music"), ("1 prompts retired",)),
        (("list", "--retired"), ("training, retired",)),
        (("restore", "--tagged", "music"), ("1 prompts restored",)),
        (("tag", "Loud ones", "--tagged", "music"), ("1 prompts tagged loud-ones",)),
        (("untag", "music", "--tagged", "new"), ("2 prompts without music",)),
        (("split", "--tagged", "new", "--held-out"), ("are held out of training now",)),
        (("split",), ("1 to train on, 3 held out", "0 near duplicates across")),
        (("export", "out.jsonl", "--tag", "new"), ("2 prompts written",)),
    ):
        code, output = run("prompts", *(str(tmp_path / word) if "." in word else word for word in arguments))
        assert code == 0, output
        assert [word for word in words if word not in output] == [], (arguments, output)
    assert '"prompt": "a violin in snow"' in (tmp_path / "out.jsonl").read_text()
    for arguments in (("export", "out.jsonl"), ("import", "gone.txt"), ("retire",), ("split", "1"), ("tag", "!", "1")):
        code, output = run("prompts", *(str(tmp_path / word) if "." in word else word for word in arguments))
        assert code == 1, (arguments, output)
        assert "Traceback" not in output
