from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from dmpo_app.domain.lineage import BaseModelRef, ImageKind
from dmpo_app.errors import NotFoundError
from dmpo_app.store import Store
from tests.store.store_data import Clock, new_image, new_pair, publish_version

T = TypeVar("T")


def test_an_image_keeps_all_that_it_was_made_with(store: Store, base: BaseModelRef) -> None:
    image = new_image("a red fox", seed=2**63 - 1)
    stored = store.images.add(base, image, ImageKind.RENDER)
    assert store.images.get(stored.id) == stored
    assert stored.provenance == image.provenance
    assert (stored.width, stored.height) == (32, 32)
    assert store.files.read_image(stored.sha256) == image.png
    assert stored.latents_sha256 is not None
    assert store.files.read_latents(stored.latents_sha256) == image.latents


def test_an_image_may_come_without_latents(store: Store, base: BaseModelRef) -> None:
    stored = store.images.add(base, new_image(latents=None), ImageKind.RENDER)
    assert store.images.get(stored.id).latents_sha256 is None


def test_an_unknown_image_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no image 5"):
        store.images.get(5)


def test_the_contact_sheet_is_ordered_by_version_and_holds_nothing_else(store: Store, base: BaseModelRef) -> None:
    publish_version(store, base)
    late = [store.images.add(base, new_image(seed=seed, version=1), ImageKind.CONTACT_SHEET) for seed in (1, 2)]
    first = [store.images.add(base, new_image(seed=seed), ImageKind.CONTACT_SHEET) for seed in (1, 2)]
    store.images.add(base, new_image(seed=3), ImageKind.RENDER)
    other = store.models.register("other", "stable-diffusion", "e" * 64)
    store.images.add(other, new_image(seed=4), ImageKind.CONTACT_SHEET)
    assert store.images.contact_sheet(base) == first + late


def test_old_renders_go_with_their_files_and_everything_else_stays(
    store: Store, base: BaseModelRef, clock: Clock
) -> None:
    old = store.images.add(base, new_image(seed=1), ImageKind.RENDER)
    sheet = store.images.add(base, new_image(seed=2), ImageKind.CONTACT_SHEET)
    clock.advance(timedelta(days=8))
    new = store.images.add(base, new_image(seed=4), ImageKind.RENDER)
    assert store.images.purge_renders(base, clock() - timedelta(days=7)) == 1
    with pytest.raises(NotFoundError):
        store.images.get(old.id)
    assert not store.files.image_path(old.sha256).exists()
    assert old.latents_sha256 is not None
    assert not store.files.latents_path(old.latents_sha256).exists()
    for kept in (sheet, new):
        assert store.images.get(kept.id) == kept
        assert store.files.image_path(kept.sha256).exists()
    assert store.images.purge_renders(base, clock() - timedelta(days=7)) == 0


def test_a_file_that_a_pair_shares_with_a_render_stays(store: Store, base: BaseModelRef, clock: Clock) -> None:
    pair = new_pair(0)
    render = store.images.add(base, pair.image_a, ImageKind.RENDER)
    stored = store.pairs.add(base, pair)
    clock.advance(timedelta(days=8))
    assert store.images.purge_renders(base, clock()) == 1
    assert stored.image_a.sha256 == render.sha256
    assert store.files.read_image(render.sha256) == pair.image_a.png


def test_a_file_purged_between_writing_and_recording_is_written_again(
    store: Store, base: BaseModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store.database.write

    def purged_meanwhile(work: Callable[[Connection], T]) -> T:
        store.files.image_path(sha256).unlink()
        return write(work)

    sha256 = store.images.add(base, new_image(seed=1), ImageKind.RENDER).sha256
    monkeypatch.setattr(store.database, "write", purged_meanwhile)
    store.images.add(base, new_image(seed=1), ImageKind.CONTACT_SHEET)
    assert store.files.image_path(sha256).exists()


def test_the_id_of_a_deleted_image_is_never_given_to_another(store: Store, base: BaseModelRef, clock: Clock) -> None:
    old = store.images.add(base, new_image(seed=1), ImageKind.RENDER)
    clock.advance(timedelta(days=1))
    store.images.purge_renders(base, clock())
    assert store.images.add(base, new_image(seed=2), ImageKind.RENDER).id > old.id
