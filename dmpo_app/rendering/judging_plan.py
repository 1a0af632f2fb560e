"""The plan of a comparison of two versions, and the folder that it is worked off in.

    FOLDER/
        inputs.json                     what decides the images; a run with others is refused
        images/old/, images/new/        <prompt's number>-<seed>.png
        batches/old/, batches/new/      a file when a batch of images is finished
        scores/<scorer>-<identity>/     a file when a batch of pairs is scored
        rows.parquet, summary.json, sheet-<scorer>.png

A batch is the unit of work: it is made whole or made again. An image depends in its last bits on the size of its batch,
so batches are the same after a kill, and the images of a pair stand at the same place of batches of one size.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from dmpo_app.errors import BadInputError, BusyError, SetupError
from dmpo_app.io.files import full_disk_reported, make_folder, write_atomically
from dmpo_app.judging.prompt_list import PromptList, image_seed
from dmpo_app.rendering.judged_versions import JudgedVersion
from dmpo_app.settings import ScorerSettings

Side = Literal["old", "new"]
SIDES: tuple[Side, Side] = ("old", "new")
INPUTS_FILE = "inputs.json"


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One prompt with one seed; both versions render it."""

    prompt_index: int
    prompt: str
    seed: int

    @property
    def file_name(self) -> str:
        return f"{self.prompt_index:05d}-{self.seed}.png"


@dataclass(frozen=True)
class JudgingPlan:
    """The versions, prompts, seeds and scorers of a comparison. `scorers`: names and sources, no name twice."""

    new: JudgedVersion
    old: JudgedVersion
    prompts: PromptList
    scorers: tuple[ScorerSettings, ...]
    seeds_per_prompt: int = 1
    seed: int = 0
    batch_size: int = 8
    sheet_rows: int = 8

    @cached_property
    def images(self) -> list[PlannedImage]:
        """All prompts, each with all its seeds."""
        return [
            PlannedImage(number, prompt, image_seed(prompt, index, self.seed))
            for number, prompt in enumerate(self.prompts.prompts)
            for index in range(self.seeds_per_prompt)
        ]

    @cached_property
    def batches(self) -> list[list[PlannedImage]]:
        starts = range(0, len(self.images), self.batch_size)
        return [self.images[start : start + self.batch_size] for start in starts]

    def version(self, side: Side) -> JudgedVersion:
        return self.new if side == "new" else self.old


@dataclass(frozen=True, slots=True)
class JudgingFolder:
    """The files of a comparison."""

    path: Path
    plan: JudgingPlan

    @contextmanager
    def claim(self, inputs: Mapping[str, Any]) -> Iterator[None]:
        """Hold the folder, made if need be, for this process alone, and with these inputs.

        Raises BadInputError for one with other inputs or other files, BusyError while another process holds it,
        SetupError where it cannot be written.
        """
        if self.path.exists() and not self._is_ours():
            raise BadInputError(
                f"{self.path} is there already and holds no comparison; choose a folder that does not exist yet"
            )
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            with full_disk_reported(self.path):
                make_folder(self.path)
                lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"another `dmpo judge` is at work in {self.path}; wait for it, or choose another folder"
            ) from error
        except OSError as error:
            raise SetupError(f"{self.path} cannot be written ({error}); choose another folder") from error
        try:
            if self.inputs_path.is_file():
                _require_same(read_json(self.inputs_path), inputs, self.path)
            else:
                write_atomically(self.inputs_path, json.dumps(inputs, indent=1).encode())
            yield
        finally:
            lock.release()

    def _is_ours(self) -> bool:
        """True for a folder with a comparison, or with nothing in it but the lock of one."""
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else {""}
        return INPUTS_FILE in names or not names - {".lock"}

    @property
    def inputs_path(self) -> Path:
        return self.path / INPUTS_FILE

    def image_path(self, side: Side, image: PlannedImage) -> Path:
        return self.path / "images" / side / image.file_name

    def marker_path(self, side: Side, index: int) -> Path:
        return self.path / "batches" / side / f"{index:05d}.json"

    def scores_path(self, name: str, identity: str, index: int) -> Path:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return self.path / "scores" / f"{name}-{digest}" / f"{index:05d}.json"

    def unrendered(self, side: Side) -> list[int]:
        """Numbers of the batches that are not finished, or have lost an image since."""
        return [
            index
            for index, batch in enumerate(self.plan.batches)
            if not self.marker_path(side, index).is_file()
            or not all(self.image_path(side, image).is_file() for image in batch)
        ]

    def unscored(self, name: str, identity: str) -> list[int]:
        """Numbers of the batches that the scorer has not scored yet."""
        indices = range(len(self.plan.batches))
        return [index for index in indices if not self.scores_path(name, identity, index).is_file()]

    def read_withheld(self, side: Side) -> NDArray[np.bool_]:
        """For each image of the plan, whether the safety checker blacked it out."""
        markers = [read_json(self.marker_path(side, index)) for index in range(len(self.plan.batches))]
        return np.array([flag for marker in markers for flag in marker["withheld"]], dtype=bool)

    def read_scores(self, name: str, identity: str) -> dict[Side, NDArray[np.float64]]:
        """The scores of each image of the plan, by side."""
        parts = [read_json(self.scores_path(name, identity, index)) for index in range(len(self.plan.batches))]
        return {side: np.array([score for part in parts for score in part[side]], dtype=np.float64) for side in SIDES}


def _require_same(earlier: Mapping[str, Any], inputs: Mapping[str, Any], folder: Path) -> None:
    """Raise BadInputError that names the inputs which differ from those of the comparison in the folder."""
    changes = [
        f"{name}: {earlier.get(name)} there, {inputs.get(name)} now"
        for name in dict.fromkeys([*earlier, *inputs])
        if earlier.get(name) != inputs.get(name)
    ]
    if changes:
        raise BadInputError(
            f"{folder} holds a comparison of other inputs ({'; '.join(changes)}); choose another --output, or ask for "
            "the same again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of this run. Raises SetupError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SetupError(
            f"{path} cannot be read ({error}); delete it and run the same command again, which makes it anew"
        ) from error
    if not isinstance(value, dict):
        raise SetupError(f"{path} is not what a comparison wrote; delete it and run the same command again")
    return value
