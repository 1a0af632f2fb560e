"""The training images: scenes drawn by lot, rendered by all processors, kept in files of a thousand.

A file's scenes follow from the seed and the file's number, so only pixels are stored and a missing file can be redone.
"""

import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmpo_app.io.files import atomic_file
from dmpo_app.pocket.scenes import Scene, sample_scene
from examples.pocket_model.render import render

logger = logging.getLogger(__name__)

SCENES_PER_FILE = 1000


def generate_scenes(seed: int, number: int, count: int = SCENES_PER_FILE) -> list[Scene]:
    """Generate the scenes of file `number`."""
    generator = np.random.default_rng((seed, number))
    return [sample_scene(generator) for _ in range(count)]


def render_all(folder: Path, *, seed: int, files: int, processes: int) -> list[Path]:
    """Render missing files and return the paths of all: `files` arrays uint8 (1000, 128, 128, 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.npy" for number in range(files)]
    missing = [(seed, number, path) for number, path in enumerate(paths) if not path.exists()]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, path in enumerate(pool.imap(_render_file, missing), 1):
            logger.info(f"renders: {path.name} ({done}/{len(missing)})")
    return paths


def _render_file(job: tuple[int, int, Path]) -> Path:
    seed, number, path = job
    images = np.stack([render(scene) for scene in generate_scenes(seed, number)])
    with atomic_file(path) as file:
        np.save(file, images)
    return path


class Renders:
    """All stored images as one sequence, read from disk on demand."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [np.load(path, mmap_mode="r") for path in paths]
        self._per_file = len(self._files[0])

    def __len__(self) -> int:
        return self._per_file * len(self._files)

    def take(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Read images uint8 (B, 128, 128, 3) by index."""
        return np.stack([self._files[i // self._per_file][i % self._per_file] for i in indices])
