"""Images decoded in processes of their own: what they say, and what becomes of a process that a file brings down."""

import io
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import StudioError
from dmpo_app.exchange.importing.importer import DecodedImage, DecodePool
from dmpo_app.exchange.readers.reader import LeftOutReason
from tests.exchange.readers.preference_files import image_bytes
from tests.patience import wait_until

POISON = b"a file that brings a decoder down"
BROUGHT_DOWN = f"""
import os
import dmpo_app.exchange.importing.image_decoding as decoding
from dmpo_app.parsing.child_process import main
look = decoding.decode_image
decoding.decode_image = lambda file: os.abort() if file == {POISON!r} else look(file)
main()
"""


def test_what_images_are_comes_back_in_order() -> None:
    files = [image_bytes(1, size=(20, 10)), b"no image", image_bytes(2, file_format="PNG", size=(8, 8))]
    with DecodePool(ParserLimits(), keeps_images=True) as pool:
        first, second, third = pool.decode(files).result(60)
    assert isinstance(first, DecodedImage)
    assert isinstance(third, DecodedImage)
    assert (first.width, first.height, second, third.width) == (20, 10, LeftOutReason.BROKEN_IMAGE.value, 8)
    assert first.png is not None
    assert Image.open(io.BytesIO(first.png), formats=["PNG"]).size == (20, 10)


def test_images_are_let_go_of_when_only_asked_whether_they_can_be_used() -> None:
    with DecodePool(ParserLimits(), keeps_images=False) as pool:
        assert pool.decode([image_bytes(1, size=(20, 10))]).result(60) == [DecodedImage(None, 20, 10)]


def test_decoders_import_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("struct.py", "zlib.py", "dmpo_app.py"):
        (tmp_path / name).write_text("raise SystemExit('a module of the current folder was imported')")
    monkeypatch.chdir(tmp_path)
    with DecodePool(ParserLimits(), keeps_images=False) as pool:
        assert pool.decode([image_bytes(1, size=(20, 10))]).result(60) == [DecodedImage(None, 20, 10)]


def test_a_file_that_brings_the_decoder_down_costs_itself_alone() -> None:
    files = [image_bytes(1), POISON, image_bytes(2), POISON]
    with DecodePool(ParserLimits(), keeps_images=True, command=(sys.executable, "-c", BROUGHT_DOWN)) as pool:
        found = pool.decode(files).result(120)
        assert [isinstance(one, DecodedImage) for one in found] == [True, False, True, False]
        assert found[1] == LeftOutReason.CRASHING_IMAGE.value
        assert isinstance(pool.decode(files[:1]).result(60)[0], DecodedImage)


def test_a_decoder_that_does_not_start_is_no_fault_of_the_images() -> None:
    with (
        DecodePool(ParserLimits(), keeps_images=True, command=(sys.executable, "-c", "raise SystemExit(3)")) as pool,
        pytest.raises(StudioError, match=r"did not start \(exit status 3\)"),
    ):
        pool.decode([image_bytes(1)]).result(60)


def test_no_process_is_left_behind() -> None:
    with DecodePool(ParserLimits(), keeps_images=True) as pool:
        pool.decode([image_bytes(1)]).result(60)
        assert _decoders(os.getpid())
    assert not _decoders(os.getpid())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(image_bytes(1))
    parent = psutil.Popen(
        [sys.executable, "-c", f"""
import pathlib, time
from dmpo_app.domain.limits import ParserLimits
from dmpo_app.exchange.importing.importer import DecodePool
pool = DecodePool(ParserLimits(), keeps_images=True)
pool.decode([pathlib.Path({str(image)!r}).read_bytes()]).result()
print("decoded", flush=True)
time.sleep(600)
"""],
        stdout=-1,
    )  # fmt: skip
    assert parent.stdout.readline() == b"decoded\n"
    (decoder,) = _decoders(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(
        lambda: not decoder.is_running() or decoder.status() == psutil.STATUS_ZOMBIE,
        "the decoder has ended too",
    )


def _decoders(pid: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(pid).children() if any("child_process" in word for word in one.cmdline())]
