import errno
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from PIL import Image

from dmpo_app.diffusion.adapter_files import AdapterWeights
from dmpo_app.diffusion.hub import is_passing_load_error
from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.domain.lineage import RenderRequest
from dmpo_app.errors import (
    BadInputError,
    BusyError,
    DamagedFileError,
    ModelUnavailableError,
    NotFoundError,
    NotReadyError,
    StorageFullError,
    StudioError,
    UnknownFamilyError,
)
from dmpo_app.io.liveness import phase
from dmpo_app.rendering import render_thread
from dmpo_app.rendering.engine import Engine, encode_png
from dmpo_app.rendering.pool import NUM_PROMPTS, SEEDS
from dmpo_app.rendering.render_thread import BackgroundWork, RenderThread
from tests.adapters import SPEC
from tests.model_fixtures import NUM_THREADS
from tests.patience import PATIENCE, wait_until
from tests.rendering.rendering_studio import TRAIN_PROMPTS, RenderingStudio

MakeAdapter = Callable[[int], AdapterWeights]
REQUEST = RenderRequest("a red fox", 5, (0,))
IMAGES_UNDER_CHANGE = 40 if "DMPO_SOAK_KILLS" in os.environ else 12
"""Requests: each of three versions with each of four seeds. `make soak` makes more."""


@pytest.fixture
def thread(studio: RenderingStudio) -> Iterator[RenderThread]:
    thread = RenderThread(studio.store, studio.base, studio.settings, num_threads=NUM_THREADS)
    yield thread
    thread.stop()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every step of background work so far: whether there was something to do."""
    taken: list[bool] = []
    step = BackgroundWork.step

    def recorded(work: BackgroundWork, should_stop: Callable[[], bool]) -> bool:
        taken.append(step(work, should_stop))
        return taken[-1]

    monkeypatch.setattr(BackgroundWork, "step", recorded)
    return taken


def wait_until_it_rests(steps: list[bool]) -> None:
    """Wait until the thread has looked again for something to do, twice, and there was nothing."""
    steps.clear()
    wait_until(lambda: steps[-2:] == [False, False], "there is nothing to do for the thread")


def is_idle(studio: RenderingStudio) -> bool:
    sheet = studio.store.images.contact_sheet(studio.base)
    versions = 1 + len(studio.store.adapters.list(studio.base))
    full = studio.store.pairs.count_unjudged(studio.base) >= studio.settings.pool.size
    return full and len(sheet) == versions * NUM_PROMPTS * len(SEEDS)


def test_importing_the_render_thread_does_not_import_torch() -> None:
    code = "import sys; import dmpo_app.rendering.render_thread; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_request_made_while_the_model_loads_is_answered(studio: RenderingStudio, thread: RenderThread) -> None:
    assert thread.state.phase == "starting"
    future = thread.submit(REQUEST)
    assert thread.state.pending == 1
    thread.start()
    (image,) = future.result(timeout=PATIENCE)
    assert image.version == 0
    assert studio.store.images.get(image.image.id) == image.image
    state = thread.state
    assert (state.phase, state.live_version, state.device, state.message) == ("ready", 0, "cpu", "")


def test_the_pool_and_the_contact_sheet_are_filled_and_then_the_thread_rests(
    studio: RenderingStudio, thread: RenderThread, steps: list[bool]
) -> None:
    thread.start()
    wait_until(lambda: is_idle(studio), "pool and contact sheet are complete")
    wait_until_it_rests(steps)
    assert studio.store.pairs.count(studio.base) == studio.settings.pool.size
    assert set(studio.store.pairs.prompt_counts(studio.base)) == set(TRAIN_PROMPTS)


def test_a_published_version_goes_live_and_gets_pairs_and_a_contact_sheet(
    studio: RenderingStudio, thread: RenderThread, adapter: MakeAdapter
) -> None:
    thread.start()
    wait_until(lambda: is_idle(studio), "pool and contact sheet are complete")
    studio.publish(adapter(1))
    wait_until(lambda: thread.state.live_version == 1, "version 1 is live")
    wait_until(lambda: studio.store.pairs.count_unjudged(studio.base, adapter_version=1) == 2, "its pairs are there")
    wait_until(lambda: is_idle(studio), "its contact sheet is complete")
    base, live = thread.submit(RenderRequest("a red fox", 5, (0, 1))).result(timeout=PATIENCE)
    assert (base.version, live.version) == (0, 1)
    assert base.image.sha256 != live.image.sha256


def test_a_damaged_version_is_reported_and_the_studio_goes_on(
    studio: RenderingStudio, thread: RenderThread, adapter: MakeAdapter, steps: list[bool]
) -> None:
    studio.damage(studio.publish(adapter(1)))
    thread.start()
    assert thread.submit(REQUEST).result(timeout=PATIENCE)
    assert "version 1 could not be loaded" in thread.state.message
    assert thread.state.live_version == 0
    num_images = NUM_PROMPTS * len(SEEDS)
    wait_until(lambda: len(studio.store.images.contact_sheet(studio.base)) == num_images, "the contact sheet is there")
    wait_until_it_rests(steps)
    sheet = studio.store.images.contact_sheet(studio.base)
    assert [image.provenance.adapter_version for image in sheet] == [0] * num_images
    assert studio.store.pairs.count_unjudged(studio.base, adapter_version=0) == studio.settings.pool.size


def test_an_error_reaches_whoever_asked_and_nobody_else(thread: RenderThread) -> None:
    thread.start()
    bad, good = thread.submit(RenderRequest("a red fox", 5, (9,))), thread.submit(REQUEST)
    with pytest.raises(NotFoundError, match="9"):
        bad.result(timeout=PATIENCE)
    assert good.result(timeout=PATIENCE)


def test_a_request_that_was_given_up_is_not_rendered(studio: RenderingStudio, thread: RenderThread) -> None:
    given_up, wanted = thread.submit(REQUEST), thread.submit(RenderRequest("a red fox", 6, (0,)))
    assert given_up.cancel()
    thread.start()
    (image,) = wanted.result(timeout=PATIENCE)
    assert image.image.id == 1


def test_a_failure_nobody_foresaw_is_answered_and_the_thread_goes_on(
    thread: RenderThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.start()
    assert thread.submit(REQUEST).result(timeout=PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(LiveModel, "_noise", lambda self, seeds: 1 / 0)
        with pytest.raises(StudioError, match="log says why"):
            thread.submit(REQUEST).result(timeout=PATIENCE)
    assert thread.submit(REQUEST).result(timeout=PATIENCE)


def test_a_full_disk_is_said_and_pairs_are_made_again_when_there_is_space(
    studio: RenderingStudio, thread: RenderThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise StorageFullError("no space left on the device")

    monkeypatch.setattr(render_thread, "ERROR_PAUSE_SECONDS", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(studio.store.files, "put_all", full)
        thread.start()
        wait_until(lambda: "disk is full" in thread.state.message, "the disk is reported to be full")
        assert studio.store.pairs.count(studio.base) == 0
    wait_until(lambda: is_idle(studio), "the pool is full")
    wait_until(lambda: thread.state.message == "", "the message is gone")


@pytest.mark.parametrize(
    "request_",
    [
        RenderRequest("fox", 5, ()),
        RenderRequest("fox", 5, (0,) * 9),
        RenderRequest("fox", -1, (0,)),
        RenderRequest("fox", 2**31, (0,)),
        RenderRequest("fox", 5, (0,), strength=1.6),
        RenderRequest("fox", 5, (0,), strength=float("nan")),
        RenderRequest("fox", 5, (0,), num_steps=0),
        RenderRequest("fox", 5, (0,), num_steps=1000),
        RenderRequest("fox", 5, (0,), guidance=float("inf")),
    ],
)
def test_values_no_image_can_be_made_of_are_refused_at_once(thread: RenderThread, request_: RenderRequest) -> None:
    with pytest.raises(BadInputError):
        thread.submit(request_)
    assert thread.state.pending == 0


def test_a_full_queue_is_busy(studio: RenderingStudio, thread: RenderThread) -> None:
    for _ in range(studio.settings.render.queue_size):
        thread.submit(REQUEST)
    with pytest.raises(BusyError, match="8"):
        thread.submit(REQUEST)
    thread.start()
    wait_until(lambda: thread.state.pending == 0, "the queue is empty")
    assert thread.submit(REQUEST).result(timeout=PATIENCE)


def test_a_model_that_cannot_be_loaded_is_said_to_everybody_who_asks(tmp_path: Path, tiny_model: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    studio = RenderingStudio.open(tmp_path / "home", folder)
    shutil.rmtree(folder / "vae")
    thread = RenderThread(studio.store, studio.base, studio.settings, num_threads=NUM_THREADS)
    waiting = thread.submit(REQUEST)
    thread.start()
    with pytest.raises(NotReadyError, match="vae"):
        waiting.result(timeout=PATIENCE)
    assert thread.state.phase == "failed"
    assert "no vae folder" in thread.state.message
    with pytest.raises(NotReadyError, match="vae"):
        thread.submit(REQUEST)
    thread.stop()
    studio.store.close()


def test_stopping_interrupts_a_long_image_and_refuses_what_waits(studio: RenderingStudio, thread: RenderThread) -> None:
    thread.start()
    thread.submit(REQUEST).result(timeout=PATIENCE)
    long = thread.submit(RenderRequest("a red fox", 5, (0,), num_steps=200))
    waiting = thread.submit(REQUEST)
    wait_until(lambda: long.running(), "the long request runs")
    thread.stop()
    assert thread.state.phase == "stopped"
    for future in (long, waiting):
        with pytest.raises(NotReadyError, match="shutting down"):
            future.result(timeout=1)
    with pytest.raises(NotReadyError):
        thread.submit(REQUEST)


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def caused_by(cause: BaseException) -> ModelUnavailableError:
    error = ModelUnavailableError("it could not be loaded")
    error.__cause__ = cause
    return error


def http_error(status: int) -> HfHubHTTPError:
    answer = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/x"))
    return HfHubHTTPError(f"{status}", response=cast(Any, answer))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        full_disk(),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError(),
        httpx.ConnectTimeout("timed out"),
        http_error(503),
        http_error(429),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}",
)
def test_a_load_that_failed_for_a_passing_reason_is_tried_again(error: Exception) -> None:
    assert is_passing_load_error(error)
    assert is_passing_load_error(caused_by(error))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        PermissionError(errno.EACCES, "Permission denied"),
        ModelUnavailableError("the folder is missing"),
        UnknownFamilyError("of no family that is known"),
        ValueError("a shape does not fit"),
        RuntimeError("size mismatch"),
        OfflineModeIsEnabled("HF_HUB_OFFLINE is set"),
        http_error(404),
        http_error(401),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}",
)
def test_a_load_that_failed_for_good_is_not(error: Exception) -> None:
    assert not is_passing_load_error(error)
    assert not is_passing_load_error(caused_by(error))


def test_a_model_that_could_not_be_loaded_for_now_is_loaded_later_and_whoever_waited_gets_their_image(
    studio: RenderingStudio, thread: RenderThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_thread, "FIRST_RETRY_SECONDS", 0.3)
    load = Engine.load
    failures = [OSError(errno.EMFILE, "Too many open files"), caused_by(full_disk())]
    pauses: list[str] = []

    def fails_first(*arguments: Any, **options: Any) -> Engine:
        if failures:
            raise failures.pop()
        pauses.append(thread.state.message)
        return load(*arguments, **options)

    monkeypatch.setattr(Engine, "load", fails_first)
    future = thread.submit(REQUEST)
    thread.start()
    wait_until(lambda: thread.state.is_retrying, "the thread waits to try again")
    assert thread.state.phase == "loading"
    assert "tried again in" in thread.state.message
    assert len(future.result(timeout=PATIENCE)) == 1
    assert (thread.state.phase, thread.state.is_retrying) == ("ready", False)


def test_a_thread_that_waits_to_load_again_stops_at_once(
    studio: RenderingStudio, thread: RenderThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Engine:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Engine, "load", fails)
    thread.start()
    wait_until(lambda: thread.state.is_retrying, "the thread waits to try again")
    started = time.monotonic()
    thread.stop()
    assert time.monotonic() - started < render_thread.FIRST_RETRY_SECONDS
    assert not thread._thread.is_alive()


def test_the_pauses_grow_and_do_not_grow_for_ever() -> None:
    pauses = list(itertools.islice(render_thread._retry_pauses(), 12))
    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert pauses[-1] == 300.0


def test_an_image_that_was_put_back_is_found_by_the_thread(
    studio: RenderingStudio, thread: RenderThread, steps: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_thread, "_RECHECK_EVERY", timedelta(0))
    thread.start()
    wait_until(lambda: is_idle(studio), "pool and contact sheet are complete")
    files, pair = studio.store.files, studio.store.pairs.get(1)
    path = files.image_path(pair.image_a.sha256)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(DamagedFileError) as caught:
        files.read_image(pair.image_a.sha256)
    studio.store.damage.record(caught.value)
    wait_until_it_rests(steps)
    assert studio.store.damage.count(studio.base) == 1
    path.write_bytes(content)
    wait_until(lambda: studio.store.damage.count(studio.base) == 0, "the thread has looked again")


def test_renders_that_are_too_old_are_deleted(studio: RenderingStudio, thread: RenderThread) -> None:
    thread.start()
    (image,) = thread.submit(REQUEST).result(timeout=PATIENCE)
    thread.stop()
    later = RenderThread(
        studio.store,
        studio.base,
        studio.settings.model_copy(update={"render": studio.settings.render.model_copy(update={"keep_days": 1e-9})}),
        num_threads=NUM_THREADS,
    )
    later.start()
    wait_until(lambda: not studio.store.files.image_path(image.image.sha256).exists(), "the old image is deleted")
    later.stop()


@pytest.mark.soak
def test_every_image_is_bitwise_of_the_version_it_is_labelled_with_while_versions_change_all_the_time(
    studio: RenderingStudio, thread: RenderThread, adapter: MakeAdapter
) -> None:
    expected: dict[tuple[int, int], str] = {}
    model = LiveModel.load(studio.base.source, studio.settings.render, SPEC)
    for version in (1, 2, 3):
        studio.publish(adapter(version))
        model.swap(version, adapter(version))
        expected |= {(version, seed): digest(model, version, seed) for seed in range(4)}
    thread.start()
    done = threading.Event()

    def change_versions() -> None:
        version = 1
        while not done.is_set():
            version = version % 3 + 1
            studio.store.adapters.set_live(studio.base, version, "test")
            time.sleep(0.02)

    changer = threading.Thread(target=change_versions)
    changer.start()
    try:
        for number in range(IMAGES_UNDER_CHANGE):
            request = RenderRequest("a red fox", number % 4, (0, 1 + number % 3))
            _, live = thread.submit(request).result(timeout=PATIENCE)
            assert live.image.sha256 == expected[live.version, request.seed]
    finally:
        done.set()
        changer.join()
    wait_until(lambda: studio.store.pairs.count_unjudged(studio.base) >= 4, "the pool is full")
    for pair_id in range(1, 5):
        pair = studio.store.pairs.get(pair_id)
        model.swap(pair.adapter_version, None if pair.adapter_version == 0 else adapter(pair.adapter_version))
        seeds = (pair.image_a.provenance.seed, pair.image_b.provenance.seed)
        samples = model.render([Shot(pair.prompt, seed, pair.adapter_version) for seed in seeds])
        assert [png_sha(sample.image) for sample in samples] == [pair.image_a.sha256, pair.image_b.sha256]


def digest(model: LiveModel, version: int, seed: int) -> str:
    return png_sha(model.render([Shot("a red fox", seed, 0), Shot("a red fox", seed, version)])[1].image)


def png_sha(image: Image.Image) -> str:
    return hashlib.sha256(encode_png(image)).hexdigest()


def test_a_download_of_the_model_is_announced(thread: RenderThread, monkeypatch: pytest.MonkeyPatch) -> None:
    go, load = threading.Event(), Engine.load

    def download_first(*arguments: Any) -> Engine:
        with phase("downloading somebody/model"):
            assert go.wait(PATIENCE)
        return load(*arguments)

    monkeypatch.setattr(Engine, "load", download_first)
    thread.start()
    wait_until(lambda: thread.state.message == "downloading somebody/model", "the download is shown")
    assert thread.state.phase == "loading"
    go.set()
    wait_until(lambda: thread.state.phase == "ready", "the model is loaded")
    assert thread.state.message == ""
