"""Damaged files are remembered: pairs leave the offers and come back, votes stay, lost tensors are made anew."""

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from dmpo_app.domain.campaign import ReportReason
from dmpo_app.domain.lineage import BaseModelRef, NewPair, Pair, PairSource
from dmpo_app.domain.vote import Annotator, AssignmentRules, Choice
from dmpo_app.errors import DamagedFileError, ExpiredError, SystemExhaustedError
from dmpo_app.store import Store
from tests.store.store_data import HOUR, issue, new_image

HOW = ("missing", "half", "empty", "one bit", "html")


def own_pair(number: int, num_images: int = 2) -> NewPair:
    """A pair or set whose files are no other's."""
    prompt = f"prompt {number}"
    a, b, *more = (
        new_image(prompt, side, png=f"png {number} {side}".encode(), latents=f"latents {number} {side}".encode())
        for side in range(num_images)
    )
    return NewPair(prompt, a, b, f"embeds {prompt}".encode(), PairSource.POOL, tuple(more))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
        return
    changed = {"half": content[: len(content) // 2], "empty": b"", "html": b"<html></html>"}
    path.write_bytes(changed.get(how, bytes([content[0] ^ 1]) + content[1:]))


def find_damage(store: Store, pair: Pair, side: int = 0) -> None:
    images = (pair.image_a, pair.image_b, *pair.more)
    with pytest.raises(DamagedFileError) as caught:
        store.files.read_image(images[side].sha256)
    store.damage.record(caught.value)


@pytest.mark.parametrize("how", HOW)
def test_a_pair_with_a_damaged_image_is_offered_to_nobody_until_it_is_whole(
    store: Store, base: BaseModelRef, anna: Annotator, ben: Annotator, how: str
) -> None:
    lost, whole = store.pairs.add_many(base, [own_pair(0), own_pair(1)])
    path = store.files.image_path(lost.image_b.sha256)
    content = path.read_bytes()
    held = next(one for one in issue(store, base, anna, 2) if one.pair_id == lost.id)
    damage(path, how)
    find_damage(store, lost, side=1)
    with pytest.raises(ExpiredError):
        store.votes.record(held.id, anna.id, Choice.LEFT, 10)
    assert [one.pair_id for one in issue(store, base, ben, 9)] == [whole.id]
    assert store.pairs.count_unjudged(base) == 0, "one is out for a vote, the other is damaged"
    assert [(one.pair_id, one.prompt, one.lost) for one in store.damage.list(base)] == [(lost.id, "prompt 0", "images")]
    store.damage.recheck(limit=9)
    assert store.damage.count(base) == 1, "nothing was put back"
    path.write_bytes(content)
    store.damage.recheck(limit=9)
    assert store.damage.count(base) == 0
    assert {one.pair_id for one in issue(store, base, ben, 9)} == {lost.id, whole.id}


def test_a_file_that_cannot_be_read_for_now_keeps_no_other_from_being_checked(
    store: Store, base: BaseModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, whole = store.pairs.add_many(base, [own_pair(0), own_pair(1)])
    store.damage.record_paths([f"images/{name[:2]}/{name}.png" for name in (lost.image_a.sha256, whole.image_a.sha256)])
    assert store.damage.count(base) == 2
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.stem == lost.image_a.sha256:
            raise OSError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    store.damage.recheck(limit=9)
    assert [one.pair_id for one in store.damage.list(base)] == [lost.id]


def test_checking_again_moves_nothing(store: Store, base: BaseModelRef) -> None:
    pair = store.pairs.add(base, own_pair(0))
    [latents] = store.read("SELECT latents_sha256 FROM images WHERE id = :id", id=pair.image_a.id)[0]
    path = store.files.latents_path(latents)
    damage(path, "half")
    store.damage.record_paths([str(path.relative_to(store.home))])
    store.damage.recheck_tensors()
    assert path.is_file(), "what finds damage moves it, not what looks again"
    assert [one.lost for one in store.damage.list(base)] == ["tensors"]


def test_votes_on_a_damaged_pair_stay_and_train_as_before(store: Store, base: BaseModelRef, anna: Annotator) -> None:
    pair = store.pairs.add(base, own_pair(0))
    [shown] = issue(store, base, anna)
    vote = store.votes.record(shown.id, anna.id, Choice.LEFT, 10)
    damage(store.files.image_path(pair.image_a.sha256), "half")
    find_damage(store, pair)
    assert [one.vote_id for one in store.votes.training_votes(base)] == [vote.vote_id]
    assert store.votes.new_preferences(base).count == 1
    store.votes.undo(vote.vote_id, anna.id)
    assert issue(store, base, anna) == [], "undoing it does not bring the damaged pair back"


def test_two_pairs_of_one_image_and_the_third_image_of_a_set_go_and_come_together(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    shared = own_pair(0).image_a
    first = store.pairs.add(base, own_pair(0))
    other = own_pair(1)
    twin = NewPair("prompt 0", shared, new_image("prompt 0", 9, png=b"its own"), other.prompt_embeds, PairSource.POOL)
    second, ranked = store.pairs.add_many(base, [twin, own_pair(2, num_images=4)])
    path = store.files.image_path(first.image_a.sha256)
    content = path.read_bytes()
    damage(path, "html")
    find_damage(store, first)
    damage(store.files.image_path(ranked.more[0].sha256), "missing")
    find_damage(store, ranked, side=2)
    assert {one.pair_id for one in store.damage.list(base)} == {first.id, second.id, ranked.id}
    rules = AssignmentRules(num_images=4)
    asked = store.assignments.issue(base, anna.id, 9, rng=random.Random(0), lifetime=HOUR, rules=rules)
    assert asked.result() == []
    path.write_bytes(content)
    assert store.damage.recheck(limit=1) > 0, "there are more to look at"
    store.damage.recheck(limit=9)
    assert [one.pair_id for one in store.damage.list(base)] == [ranked.id]


def test_a_report_that_is_cleared_does_not_bring_a_damaged_pair_back(
    store: Store, base: BaseModelRef, anna: Annotator
) -> None:
    pair = store.pairs.add(base, own_pair(0))
    [shown] = issue(store, base, anna)
    report = store.reports.add(shown.id, anna.id, ReportReason.BROKEN, None)
    damage(store.files.image_path(pair.image_a.sha256), "missing")
    find_damage(store, pair)
    store.reports.clear(base, report.id, by="admin")
    ben = store.annotators.ensure("ben")
    assert issue(store, base, ben) == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.EACCES, errno.ESTALE])
def test_an_error_of_the_system_is_not_taken_for_damage(
    store: Store, base: BaseModelRef, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pair = store.pairs.add(base, own_pair(0))

    def fails(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        with pytest.raises(SystemExhaustedError):
            store.files.read_image(pair.image_a.sha256)
    assert store.files.read_image(pair.image_a.sha256) == b"png 0 0"


def test_a_short_read_that_is_whole_the_second_time_is_no_damage(
    store: Store, base: BaseModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = store.pairs.add(base, own_pair(0))
    whole = Path.read_bytes
    reads: list[Path] = []

    def once_short(path: Path) -> bytes:
        reads.append(path)
        return whole(path)[:2] if len(reads) == 1 else whole(path)

    monkeypatch.setattr(Path, "read_bytes", once_short)
    assert store.files.read_image(pair.image_a.sha256) == b"png 0 0"


def test_a_damaged_file_is_kept_aside_and_the_same_content_can_be_stored_again(
    store: Store, base: BaseModelRef
) -> None:
    pair = store.pairs.add(base, own_pair(0))
    path = store.files.image_path(pair.image_a.sha256)
    damage(path, "html")
    find_damage(store, pair)
    aside = store.home / "damaged" / path.relative_to(store.home)
    assert aside.read_bytes() == b"<html></html>"
    assert store.files.put_images([b"png 0 0"]) == [pair.image_a.sha256]
    store.damage.recheck(limit=9)
    assert store.damage.count(base) == 0


@pytest.mark.parametrize("folder", ["latents", "embeds"])
@pytest.mark.parametrize("how", HOW)
def test_votes_on_a_pair_that_lost_tensors_wait_until_it_is_encoded_again(
    store: Store, base: BaseModelRef, anna: Annotator, folder: str, how: str
) -> None:
    pair, _ = store.pairs.add_many(base, [own_pair(0), own_pair(1)])
    for shown in issue(store, base, anna, 2):
        store.votes.record(shown.id, anna.id, Choice.LEFT, 10)
    of_pair = next(vote for vote in store.votes.training_votes(base) if vote.pair_id == pair.id)
    sha256 = of_pair.latents_a if folder == "latents" else of_pair.prompt_embeds
    read = store.files.read_latents if folder == "latents" else store.files.read_embeds
    path = store.files.latents_path(sha256) if folder == "latents" else store.files.embeds_path(sha256)
    damage(path, how)
    with pytest.raises(DamagedFileError) as caught:
        read(sha256)
    store.damage.record(caught.value)
    assert [vote.pair_id for vote in store.votes.training_votes(base)] != []
    assert pair.id not in [vote.pair_id for vote in store.votes.training_votes(base)]
    assert store.votes.new_preferences(base).count == 1
    assert [(one.pair_id, one.lost) for one in store.damage.list(base)] == [(pair.id, "tensors")]
    [unencoded] = store.imports.list_unencoded(base, after=0, limit=9)
    assert (unencoded.prompt, len(unencoded.latents)) == ("prompt 0", 2)
    embeds = {"prompt 0": b"embeds prompt 0"} if folder == "embeds" else {}
    store.imports.record_encoding(base, {pair.id: (b"latents 0 0", b"latents 0 1")}, embeds)
    assert read(sha256)
    assert len(store.votes.training_votes(base)) == 2
    assert store.damage.list(base) == []


def test_a_disk_that_is_nearly_full_is_told_and_no_longer_once_there_is_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.storage_problem() is None
    usage = shutil.disk_usage(store.home)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(total=1 << 40, free=10 << 20))
        assert "10 MiB are free" in (store.storage_problem() or "")
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(total=24 << 20, free=10 << 20))
        assert store.storage_problem() is None, "a small disk is not full all the time"
    assert store.storage_problem() is None
