import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save

from dmpo_app.diffusion.adapter_files import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    AdapterWeights,
    StagedAdapter,
    parse_adapter,
    read_adapter,
    remove_staging_folders,
    write_adapter,
)
from dmpo_app.errors import AdapterCorruptError
from tests.adapters import SPEC, random_adapter


@pytest.fixture
def adapter(unet: UNet2DConditionModel) -> AdapterWeights:
    return random_adapter(unet, 1)


@pytest.fixture
def staged(tmp_path: Path, adapter: AdapterWeights) -> StagedAdapter:
    return write_adapter(tmp_path, 3, adapter.tensors, adapter.spec, {"parent": 2, "vote_ids": [1, 2]})


def test_what_is_written_is_read_back_exactly(tmp_path: Path, adapter: AdapterWeights, staged: StagedAdapter) -> None:
    read = read_adapter(tmp_path / staged.folder_name, staged.sha256)
    assert read.spec == SPEC
    assert read.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(read.tensors[key], value) for key, value in adapter.tensors.items())
    assert read.num_bytes == sum(4 * value.numel() for value in adapter.tensors.values())


def test_the_folder_is_named_by_version_and_hash_and_holds_a_manifest(tmp_path: Path, staged: StagedAdapter) -> None:
    folder = tmp_path / staged.folder_name
    assert staged.folder_name == f"00003-{staged.sha256[:8]}"
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST_FILE, WEIGHTS_FILE]
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert (manifest["version"], manifest["parent"], manifest["vote_ids"]) == (3, 2, [1, 2])
    assert manifest["weights_sha256"] == hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert manifest["libraries"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_publishing_again_after_a_crash_finds_the_folder(
    tmp_path: Path, adapter: AdapterWeights, staged: StagedAdapter
) -> None:
    before = (tmp_path / staged.folder_name / MANIFEST_FILE).stat().st_mtime_ns
    again = write_adapter(tmp_path, 3, dict(reversed(list(adapter.tensors.items()))), adapter.spec, {"parent": 2})
    assert again == staged
    assert (tmp_path / staged.folder_name / MANIFEST_FILE).stat().st_mtime_ns == before


def test_values_that_are_not_finite_are_never_written(tmp_path: Path, adapter: AdapterWeights) -> None:
    key = next(iter(adapter.tensors))
    for value in (float("nan"), float("inf")):
        broken = {**adapter.tensors, key: torch.full_like(adapter.tensors[key], value)}
        with pytest.raises(AdapterCorruptError, match="not finite"):
            write_adapter(tmp_path / "root", 1, broken, adapter.spec, {})
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("damage", ["truncated", "bit flip", "grown", "empty", "missing"])
def test_a_damaged_file_is_refused_by_its_hash(tmp_path: Path, staged: StagedAdapter, damage: str) -> None:
    path = tmp_path / staged.folder_name / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    if damage == "bit flip":
        data[-5] ^= 0x40
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:-100], "grown": data + b"\0", "empty": bytearray()}.get(damage, data))
    with pytest.raises(AdapterCorruptError):
        read_adapter(tmp_path / staged.folder_name, staged.sha256)


def _write(folder: Path, data: bytes) -> str:
    folder.mkdir()
    (folder / WEIGHTS_FILE).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_nan_is_refused_even_with_the_right_hash(tmp_path: Path, adapter: AdapterWeights) -> None:
    key = list(adapter.tensors)[-1]
    broken = {**adapter.tensors, key: torch.full_like(adapter.tensors[key], float("nan"))}
    data = save(broken, metadata={"lora_adapter_metadata": SPEC.to_metadata()})
    with pytest.raises(AdapterCorruptError, match="not finite"):
        read_adapter(tmp_path / "a", _write(tmp_path / "a", data))


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    canary = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (canary,)  # type: ignore[return-value]

    with pytest.raises(AdapterCorruptError, match="no valid safetensors"):
        read_adapter(tmp_path / "a", _write(tmp_path / "a", pickle.dumps({"unet.x.lora_A.weight": Payload()})))
    assert not canary.exists()


def test_files_of_another_kind_are_refused(adapter: AdapterWeights) -> None:
    metadata = {"lora_adapter_metadata": SPEC.to_metadata()}
    key = next(iter(adapter.tensors))
    for data in (
        save(dict(adapter.tensors)),  # without rank and lora_alpha
        save({}, metadata=metadata),
        save({"text_encoder.layer.lora_A.weight": torch.zeros(2, 2)}, metadata=metadata),
        save({key: torch.zeros(2, 2, dtype=torch.int64)}, metadata=metadata),
        save({key: torch.zeros(2, 2)}, metadata={"lora_adapter_metadata": "{"}),
        save({key: torch.zeros(2, 2)}, metadata={"lora_adapter_metadata": SPEC.to_metadata().replace(": 4", ": -4")}),
        b"\x00" * 4,
    ):
        with pytest.raises(AdapterCorruptError):
            parse_adapter(data, "under test")


def test_what_a_killed_publisher_leaves_behind_is_no_adapter_and_can_be_removed(
    tmp_path: Path, staged: StagedAdapter
) -> None:
    (tmp_path / ".staging-dead").mkdir()
    (tmp_path / ".staging-dead" / WEIGHTS_FILE).write_bytes(b"half")
    assert remove_staging_folders(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == [staged.folder_name]
