"""Detection of the three hosting modes, and the settings that a Space changes."""

from pathlib import Path

import pytest

from dmpo_app.cli.doctor import CheckStatus, examine
from dmpo_app.errors import GpuAbortedError, GpuRefusedError, SetupError
from dmpo_app.hosting.zerogpu.gpu_calls import error_from_spaces
from dmpo_app.settings import HostingSettings, RenderSettings, Settings, apply_mode, detect_mode
from dmpo_app.settings.host import default_home
from tests.hosting.zerogpu.stand_in import spaces

STAND_IN = Path(spaces.__file__).parent


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPACE_ID", "SPACES_ZERO_GPU", "DMPO_HOSTING__MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_the_processor_alone_is_found_where_there_is_no_gpu() -> None:
    assert detect_mode(Settings()) == "cpu"


def test_what_is_set_is_not_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(hosting=HostingSettings(mode="gpu"))
    assert detect_mode(settings) == "gpu"
    assert apply_mode(settings, "gpu").render.device in ("cuda", "mps")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    on_cpu = Settings(hosting=HostingSettings(mode="cpu"))
    assert detect_mode(on_cpu) == "cpu"
    assert apply_mode(on_cpu, "cpu").render.device == "cpu"


def test_a_device_that_is_set_decides_and_is_left_as_it_is() -> None:
    settings = Settings(render=RenderSettings(device="cuda:1"))
    assert detect_mode(settings) == "gpu"
    assert apply_mode(settings, "gpu").render.device == "cuda:1"


def test_zerogpu_is_found_by_its_variable_and_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.syspath_prepend(str(STAND_IN))
    settings = Settings()
    assert detect_mode(settings) == "zerogpu"
    compiled = settings.model_copy(update={"round": settings.round.model_copy(update={"compile": True})})
    assert apply_mode(compiled, "zerogpu").round.compile is False


def test_zerogpu_where_none_is_lent_or_its_package_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Settings(hosting=HostingSettings(mode="zerogpu"))
    with pytest.raises(SetupError, match="this is no ZeroGPU"):
        detect_mode(wanted)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(SetupError, match="`spaces` is missing"):
        detect_mode(wanted)


def test_a_space_listens_to_all_addresses_in_public_and_home_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().host, Settings().public) == ("127.0.0.1", False)
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert (Settings().host, Settings().port, Settings().public) == ("0.0.0.0", 7860, True)
    assert Settings(host="127.0.0.1").host == "127.0.0.1"


def test_the_home_is_on_the_spaces_disk_if_that_is_one_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inside = default_home(tmp_path)
    assert tmp_path not in inside.parents, "at home, /data is somebody else's"
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert default_home(tmp_path) == tmp_path / "studio"
    assert default_home(tmp_path / "missing") == inside


def test_a_bucket_that_is_mounted_is_no_disk_for_a_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    monkeypatch.setattr("dmpo_app.settings.host.network_file_system", lambda _: "fuse.hf")
    assert tmp_path not in default_home(tmp_path).parents


def test_the_doctor_says_the_mode_and_what_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def finding(settings: Settings) -> tuple[CheckStatus, str]:
        found = next(one for one in examine(settings) if one.subject == "mode")
        return found.status, found.detail + found.advice

    assert finding(Settings()) == (CheckStatus.OK, "cpu: images and rounds on the processor")
    assert finding(Settings(hosting=HostingSettings(mode="zerogpu")))[0] is CheckStatus.PROBLEM
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    verdict, words = finding(Settings())
    assert verdict is CheckStatus.WARNING
    assert "wiped at every restart" in words


REFUSALS = [
    (
        "ZeroGPU quota exceeded",
        "You have exceeded your Pro ZeroGPU quota. Try again in 1:00:00.",
        GpuRefusedError,
        "1:00:00",
    ),
    ("ZeroGPU quota exceeded", "Space app has reached its GPU limit.", GpuRefusedError, "signed in"),
    ("ZeroGPU pending credits exceeded", "You have too many credits", GpuRefusedError, "no GPU time left"),
    ("ZeroGPU illegal duration", "The requested GPU duration (60s) is larger", GpuRefusedError, "SLICE_SECONDS"),
    ("ZeroGPU queue timeout", "No GPU was available after 60s", GpuRefusedError, "in a minute"),
    ("ZeroGPU client error", "Expired ZeroGPU proxy token", GpuRefusedError, "in a minute"),
    ("ZeroGPU worker error", "GPU task aborted", GpuAbortedError, "taken away in the middle"),
    ("ZeroGPU worker error", "AcceleratorError", GpuAbortedError, "AcceleratorError"),
]


@pytest.mark.parametrize(("title", "message", "kind", "said"), REFUSALS)
def test_every_refusal_of_the_package_is_explained(title: str, message: str, kind: type[Exception], said: str) -> None:
    error = error_from_spaces(spaces.Error(title, message))
    assert type(error) is kind
    assert said in str(error)
