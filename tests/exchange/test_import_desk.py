"""Data sets that an administrator sends: previewed, taken in, stopped, sent again; files that want to be elsewhere."""

import errno
import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from dmpo_app.domain.data_import import ImportUse
from dmpo_app.domain.lineage import BaseModelRef
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError, StorageFullError
from dmpo_app.exchange.importing.import_desk import ImportJob, ImportPhase, ImportService
from dmpo_app.settings import ParsingSettings, Settings
from dmpo_app.store import Store
from tests.exchange.readers.preference_files import image_bytes, mixed_rows, pick_a_pic_row, write_pick_a_pic
from tests.patience import wait_until
from tests.store.store_data import scalar


@pytest.fixture
def desk(store: Store, base: BaseModelRef) -> Iterator[ImportService]:
    desk = ImportService(store, base, Settings(home=store.home))
    yield desk
    desk.close()


def send(desk: ImportService, name: str, content: bytes, use: ImportUse = ImportUse.BOTH) -> ImportJob:
    with desk.receive_file(name, use, len(content)) as write:
        for start in range(0, len(content), 1000):
            write(content[start : start + 1000])
    return settled(desk)


def settled(desk: ImportService) -> ImportJob:
    wait_until(lambda: desk.current is not None and not desk.current.is_busy, "the import has settled")
    assert desk.current is not None
    return desk.current


def wait_for_a_batch(desk: ImportService) -> None:
    wait_until(
        lambda: desk.current is not None and desk.current.counts.rows > 0,
        "a batch is taken in",
        pause=lambda _: time.sleep(0.001),  # what comes next is to happen before the last batch is
    )


def take_in(desk: ImportService) -> ImportJob:
    desk.start_import(nullcontext, lambda done: None)
    return settled(desk)


def rows(folder: Path, count: int) -> bytes:
    return write_pick_a_pic(folder / "train-0.parquet", [pick_a_pic_row(n) for n in range(count)]).read_bytes()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def folders(count: int) -> dict[str, bytes]:
    names = [(side, n) for side in ("winners", "losers") for n in range(count)]
    images = {
        f"my data/{side}/{n}.png": image_bytes(2 * n + (side == "losers"), file_format="PNG") for side, n in names
    }
    return images | {f"my data/winners/{n}.txt": f"a boat, number {n}".encode() for n in range(count)}


def test_a_file_is_previewed_without_writing_and_then_taken_in(
    desk: ImportService, store: Store, tmp_path: Path
) -> None:
    content = write_pick_a_pic(tmp_path / "train-0.parquet", mixed_rows()).read_bytes()
    preview = send(desk, "theirs.PARQUET", content)
    assert (preview.phase, preview.format, preview.num_bytes) == (ImportPhase.PREVIEWED, "pick-a-pic", len(content))
    assert (preview.counts.rows, preview.counts.pairs, preview.counts.votes) == (12, 10, 9)
    assert sorted(preview.left_out) == [("5", "broken image"), ("8", "identical images")]
    assert scalar(store, "SELECT (SELECT count(*) FROM imports) + (SELECT count(*) FROM pairs)") == 0
    told: list[ImportJob] = []
    desk.start_import(nullcontext, told.append)
    done = settled(desk)
    assert (done.phase, done.counts, sorted(done.left_out)) == (
        ImportPhase.DONE,
        preview.counts,
        sorted(preview.left_out),
    )
    assert [one.counts for one in told] == [done.counts]
    assert scalar(store, "SELECT count(*) FROM pairs") == 10
    assert not (store.home / "imports" / "sent").exists()
    with pytest.raises(ConflictError, match="no preview"):
        desk.start_import(nullcontext, told.append)


def test_the_same_file_again_adds_nothing(desk: ImportService, tmp_path: Path) -> None:
    content = rows(tmp_path, 4)
    send(desk, "a.parquet", content)
    assert take_in(desk).counts.pairs == 4
    again = send(desk, "under another name.parquet", content)
    assert (again.counts.pairs, again.is_resumed) == (0, True)


def test_a_zip_of_folders_is_taken_in_with_its_images(desk: ImportService, store: Store) -> None:
    preview = send(desk, "folders.zip", zipped(folders(3)), ImportUse.PAIRS)
    assert (preview.format, preview.counts.pairs, preview.counts.votes) == ("winner-loser-folders", 3, 0)
    assert take_in(desk).phase is ImportPhase.DONE
    assert scalar(store, "SELECT count(*) FROM pairs WHERE is_offered") == 3


def test_a_zip_writes_nowhere_else(desk: ImportService, store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    hostile = {f"{'../' * 12}{outside.relative_to('/')}": b"x", str(outside): b"x", "../../../studio.db": b"x"}
    before = (store.home / "studio.db").read_bytes()[:16]
    assert send(desk, "hostile.zip", zipped(hostile)).phase is ImportPhase.FAILED
    assert not outside.exists()
    assert (store.home / "studio.db").read_bytes()[:16] == before


def test_a_zip_that_unpacks_to_too_much_is_refused(store: Store, base: BaseModelRef) -> None:
    limits = ParsingSettings(unpacked_mb=1, unpacked_files=3)
    desk = ImportService(store, base, Settings(home=store.home, parsing=limits))
    failed = send(desk, "bomb.zip", zipped({"winners/1.png": bytes(3 << 20)}))
    assert failed.phase is ImportPhase.FAILED
    assert "unpacks to 3 MB, at most 1; DMPO_PARSING__UNPACKED_MB" in failed.problem
    failed = send(desk, "many.zip", zipped({f"winners/{n}.png": b"x" for n in range(4)}))
    assert "holds 4 files, at most 3; DMPO_PARSING__UNPACKED_FILES" in failed.problem


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", b"PK\x03\x04 and then nothing of the kind", "cannot be read as a zip file"),
        ("a.parquet", b"PAR1 or perhaps not", "is the file whole?"),
        ("a.json", b'{"neither": 1}', "known formats are"),
        ("a.jsonl", b'{"neither": 1}\n', "known formats are"),
    ],
)
def test_what_is_no_data_set_says_so(desk: ImportService, name: str, content: bytes, said: str) -> None:
    failed = send(desk, name, content)
    assert failed.phase is ImportPhase.FAILED
    assert said in failed.problem
    assert "Something went wrong" not in failed.problem


def test_other_endings_and_other_ids_are_refused_before_anything_is_received(desk: ImportService) -> None:
    for name in ("data.pkl", "data", "data.tar.gz"):
        with (
            pytest.raises(BadInputError, match=r"ending in one of \.parquet"),
            desk.receive_file(name, ImportUse.BOTH, 1),
        ):
            pass
    for name in ("../secrets", "/etc/passwd", "a/b/c", "https://example.invalid/a"):
        with pytest.raises(BadInputError, match="owner/name"):
            desk.read_hub(name, ImportUse.BOTH)
    assert desk.current is None


def test_one_import_at_a_time(desk: ImportService, tmp_path: Path) -> None:
    content = rows(tmp_path, 3)
    with desk.receive_file("a.parquet", ImportUse.BOTH, len(content)) as write:
        write(content)
        with pytest.raises(ConflictError, match="another import"), desk.receive_file("b.parquet", ImportUse.BOTH, 1):
            pass
    assert settled(desk).counts.pairs == 3


def test_an_upload_that_breaks_off_is_said_and_the_next_one_goes_through(desk: ImportService, tmp_path: Path) -> None:
    content = rows(tmp_path, 3)
    with pytest.raises(ConnectionError):  # noqa: PT012, SIM117 - it is raised inside, as by a client that is gone
        with desk.receive_file("a.parquet", ImportUse.BOTH, len(content)) as write:
            write(content[:100])
            raise ConnectionResetError
    assert settled(desk).phase is ImportPhase.FAILED
    assert send(desk, "a.parquet", content).counts.pairs == 3


def test_a_full_disk_is_said(desk: ImportService) -> None:
    with pytest.raises(StorageFullError, match="free some space"), desk.receive_file("a.parquet", ImportUse.BOTH, 1):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "free some space" in settled(desk).problem


def test_what_is_stopped_half_way_goes_on_when_it_is_sent_again(
    desk: ImportService, store: Store, base: BaseModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmpo_app.exchange.importing.importer.BATCH_ROWS", 2)
    content = rows(tmp_path, 24)
    send(desk, "a.parquet", content)
    desk.start_import(nullcontext, lambda done: None)
    wait_for_a_batch(desk)
    desk.discard()
    assert desk.current is None
    with pytest.raises(NotFoundError):
        desk.discard()
    taken = store.pairs.count(base)
    assert 0 < taken < 24
    preview = send(desk, "a.parquet", content)
    assert (preview.is_resumed, preview.counts.pairs) == (True, 24 - taken)
    assert take_in(desk).phase is ImportPhase.DONE
    assert scalar(store, "SELECT count(*) FROM pairs") == scalar(store, "SELECT count(*) FROM votes") == 24


def test_stopping_while_it_is_unpacked_ends_that_and_leaves_nothing(
    desk: ImportService, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(100):
            file.writestr(f"winners/{number}.png", bytes(2_000_000))
    content = archive.getvalue()
    sent = store.home / "imports" / "sent"
    with desk.receive_file("a.zip", ImportUse.BOTH, len(content)) as write:
        write(content)
    wait_until(lambda: any(sent.glob("*/*/winners/*.png")), "it is being unpacked", pause=lambda _: time.sleep(0.001))
    began = time.monotonic()
    desk.discard()
    assert time.monotonic() - began < 10
    assert not sent.exists()
    time.sleep(0.2)
    assert not sent.exists(), "nobody goes on unpacking"


def test_stopping_while_it_is_received_or_read_leaves_nothing(
    desk: ImportService, store: Store, tmp_path: Path
) -> None:
    content = rows(tmp_path, 3)
    with ExitStack() as stack:
        write = stack.enter_context(desk.receive_file("a.parquet", ImportUse.BOTH, len(content)))
        write(content[:100])
        desk.discard()
        with pytest.raises(ConflictError, match="stopped"):
            write(content[100:])
    assert desk.current is None
    assert not (store.home / "imports" / "sent").exists()
