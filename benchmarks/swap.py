"""Time of a swap, and a search for torn images while another process publishes.

    python -m benchmarks.swap [--images 1000] [--every-ms 200]

The render thread fills its pool with pairs under whatever version is live while a second process publishes a new random
adapter at the given pace. Afterwards a fresh live model renders every pair again with the version, batch shape and
thread count it is labelled with, and the PNG bytes are compared.
"""

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from benchmarks.report import machine, print_table
from dmpo_app.diffusion.adapter_files import AdapterWeights, read_adapter, write_adapter
from dmpo_app.diffusion.base_models import detect_family, fingerprint
from dmpo_app.diffusion.families.registry import get_family
from dmpo_app.diffusion.live_model import LiveModel, Shot
from dmpo_app.diffusion.loading import load_denoiser
from dmpo_app.diffusion.lora import LoraSpec, expected_shapes
from dmpo_app.domain.lineage import BaseModelRef, NewAdapter, Pair, Trigger
from dmpo_app.rendering.engine import encode_png
from dmpo_app.rendering.render_thread import RenderThread
from dmpo_app.server.wiring import open_lineage, read_prompts
from dmpo_app.settings import PoolSettings, RenderSettings, Settings
from dmpo_app.store import Store

NUM_STEPS = 4


def lora_spec(settings: Settings) -> LoraSpec:
    return LoraSpec.from_settings(settings.round, get_family(detect_family(settings.base_model)))


def adapter_shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    return expected_shapes(load_denoiser(settings.base_model).module, lora_spec(settings))


def random_adapter(shapes: dict[str, tuple[int, ...]], spec: LoraSpec, seed: int) -> AdapterWeights:
    generator = torch.Generator().manual_seed(seed)
    return AdapterWeights(spec, {key: torch.randn(shape, generator=generator) * 0.03 for key, shape in shapes.items()})


def publish_all_the_time(settings: Settings, base: BaseModelRef, every_ms: float, stop: Event) -> None:
    """Publish a new version each `every_ms` as a trainer does: staged folder, fencing token, one transaction."""
    torch.set_num_threads(1)
    spec = lora_spec(settings)
    shapes = adapter_shapes(settings)
    with Store.open(settings.home) as store:
        token = store.lease.acquire(base, "benchmark", lease_seconds=3600)
        assert token is not None
        version = 0
        while not stop.wait(every_ms / 1000):
            version += 1
            state = store.rounds.start(
                base, None, trigger=Trigger.REQUEST, seed=version, steps=1, config={}, votes=[],
                parent_version=version - 1, token=token,
            )  # fmt: skip
            weights = random_adapter(shapes, spec, version)
            staged = write_adapter(store.adapters.root(base), version, weights.tensors, spec, {"benchmark": True})
            adapter = NewAdapter(version - 1, staged.folder_name, staged.sha256, False, {}, [])
            store.rounds.publish(state.id, adapter, token=token)


def render_under_fire(settings: Settings, every_ms: float, num_pairs: int) -> tuple[list[Pair], float]:
    """Fill a pool of `num_pairs` while a second process publishes; the pairs and the seconds it took."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with Store.open(settings.home) as store:
        family, prompts = detect_family(settings.base_model), read_prompts(settings.pool.train_prompts)
        base = store.models.register(settings.base_model, family, fingerprint(settings.base_model))
        store.prompts.ensure(prompts, held_out=False)  # no held-out prompt, so no contact sheet of every version
        publisher = context.Process(target=publish_all_the_time, args=(settings, base, every_ms, stop))
        publisher.start()
        while store.adapters.live_version(base) == 0:
            time.sleep(0.05)
        thread = RenderThread(store, base, settings, num_threads=1)
        started = time.perf_counter()
        thread.start()
        while store.pairs.count(base) < num_pairs:
            time.sleep(0.2)
            assert publisher.is_alive(), "the publisher stopped"
        seconds = time.perf_counter() - started
        thread.stop()
        stop.set()
        publisher.join()
        return [store.pairs.get(index) for index in range(1, num_pairs + 1)], seconds


def count_torn(settings: Settings, pairs: list[Pair]) -> int:
    """Images whose bytes are not those of the version they are labelled with."""
    torch.set_num_threads(1)
    model = LiveModel.load(settings.base_model, settings.render, lora_spec(settings))
    torn = 0
    with open_lineage(settings) as lineage:
        for pair in pairs:
            if model.version != pair.adapter_version:
                adapter = lineage.store.adapters.get(lineage.base, pair.adapter_version)
                model.swap(adapter.version, read_adapter(adapter.folder, adapter.sha256))
            shots = [
                Shot(pair.prompt, image.provenance.seed, pair.adapter_version) for image in (pair.image_a, pair.image_b)
            ]
            samples = model.render(shots)
            for sample, image in zip(samples, (pair.image_a, pair.image_b), strict=True):
                torn += encode_png(sample.image) != lineage.store.files.read_image(image.sha256)
    return torn


def swap_times(settings: Settings, count: int = 200) -> list[float]:
    """Milliseconds of `count` swaps between two validated adapters in memory."""
    model = LiveModel.load(settings.base_model, settings.render, lora_spec(settings))
    adapters = [random_adapter(adapter_shapes(settings), lora_spec(settings), seed) for seed in (1, 2)]
    times = []
    for index in range(count):
        started = time.perf_counter()
        model.swap(1 + index % 2, adapters[index % 2])
        times.append((time.perf_counter() - started) * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--every-ms", type=float, default=200)
    arguments = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            home=Path(folder) / "home",
            render=RenderSettings(num_steps=NUM_STEPS),
            pool=PoolSettings(size=10_000, starter_pairs=Path(folder) / "none.zip"),
        )
        pairs, seconds = render_under_fire(settings, arguments.every_ms, arguments.images // 2)
        torn = count_torn(settings, pairs)
        times = swap_times(settings)
    versions = len({pair.adapter_version for pair in pairs})
    print(f"{machine()}\n")
    print_table(
        ("swap of a validated adapter, ms", "min", "median", "max"),
        [("pocket model", *(f"{pick(times):.2f}" for pick in (min, statistics.median, max)))],
    )
    print_table(
        ("images", "versions they belong to", "seconds", "torn or mislabelled"),
        [(2 * len(pairs), versions, f"{seconds:.0f}", torn)],
    )


if __name__ == "__main__":
    main()
