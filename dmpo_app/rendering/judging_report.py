"""The report of a comparison: verdicts, rows as parquet, a summary as JSON, and a contact sheet for each scorer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmpo_app.errors import StudioError
from dmpo_app.exchange.exporting.export_rows import Column
from dmpo_app.exchange.exporting.output_files import ParquetFile
from dmpo_app.io.files import full_disk_reported, move_durably, write_atomically
from dmpo_app.judging.win_rates import ScorerVerdict, compare, verdict_as_json
from dmpo_app.judging.wins_sheet import SheetPair, draw_wins_sheet
from dmpo_app.rendering.judging_plan import SIDES, JudgingFolder, Side, read_json

ROWS_FILE, SUMMARY_FILE = "rows.parquet", "summary.json"
Scores = Mapping[Side, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class JudgingResult:
    """The outcome of a comparison. `withheld`: pairs left out, since the safety checker blacked an image out."""

    verdicts: Mapping[str, ScorerVerdict]
    num_pairs: int
    withheld: int


def write_report(folder: JudgingFolder, identities: Mapping[str, str], base_model: str) -> JudgingResult:
    """Compare the scores of a finished run, and write its report. `identities`: of the scorers, by name.

    Raises StudioError when every pair was withheld, StorageFullError.
    """
    withheld = {side: folder.read_withheld(side) for side in SIDES}
    scores = {name: folder.read_scores(name, identity) for name, identity in identities.items()}
    _write_rows(folder, withheld, scores)
    is_shown = ~(withheld["old"] | withheld["new"])
    if not is_shown.any():
        raise StudioError(
            "the model's safety checker flagged an image of every pair, so nothing is left to compare; choose other "
            "prompts, or set DMPO_RENDER__SAFETY_CHECKER=off"
        )
    prompt_indices = np.array([image.prompt_index for image in folder.plan.images], dtype=np.int64)[is_shown]
    verdicts = {
        name: compare(by_side["new"][is_shown], by_side["old"][is_shown], prompt_indices)
        for name, by_side in scores.items()
    }
    for name, verdict in verdicts.items():
        _write_sheet(folder, is_shown, name, scores[name], verdict)
    result = JudgingResult(verdicts, int(is_shown.sum()), int((~is_shown).sum()))
    _write_summary(folder, result, identities, base_model)
    return result


def _write_rows(
    folder: JudgingFolder, withheld: Mapping[Side, NDArray[np.bool_]], scores: Mapping[str, Scores]
) -> None:
    """Write a row for each image: the old version's and the new one's, one after the other."""
    columns = [
        Column("prompt_index", "int64", "number of the prompt, from 0"),
        Column("prompt", "string", "the prompt"),
        Column("seed", "int64", "of the noise, the same for both versions"),
        Column("side", "string", "old or new"),
        Column("version", "string", "name of the version"),
        Column("version_sha256", "string", "of its weights file; base: the base model"),
        Column("file", "string", "the image, from the folder of this file"),
        Column("withheld", "bool", "blacked out by the safety checker; its pair does not count"),
        *(Column(name, "float64", "score") for name in scores),
    ]
    target = folder.path / ROWS_FILE
    staging = target.with_name(f".{ROWS_FILE}.partial")
    with full_disk_reported(target):
        file = ParquetFile(staging, columns)
        for position, image in enumerate(folder.plan.images):
            for side in SIDES:
                version = folder.plan.version(side)
                row = {
                    "prompt_index": image.prompt_index,
                    "prompt": image.prompt,
                    "seed": image.seed,
                    "side": side,
                    "version": version.label,
                    "version_sha256": version.identity,
                    "file": folder.image_path(side, image).relative_to(folder.path).as_posix(),
                    "withheld": bool(withheld[side][position]),
                }
                file.add(row | {name: float(scores[name][side][position]) for name in scores})
        file.close()
    move_durably(staging, target)


def _write_sheet(
    folder: JudgingFolder, is_shown: NDArray[np.bool_], name: str, scores: Scores, verdict: ScorerVerdict
) -> None:
    pairs = [
        SheetPair(image.prompt, folder.image_path("old", image), folder.image_path("new", image), float(difference))
        for image, difference, shown in zip(folder.plan.images, scores["new"] - scores["old"], is_shown, strict=True)
        if shown
    ]
    new, old = folder.plan.new.label, folder.plan.old.label
    title = f"{name}: {new} wins {verdict.win_rate.value:.1%} against {old}, {len(pairs)} pairs"
    path = folder.path / f"sheet-{name}.png"
    write_atomically(path, draw_wins_sheet(title, pairs, old=old, new=new, count=folder.plan.sheet_rows))


def _write_summary(
    folder: JudgingFolder, result: JudgingResult, identities: Mapping[str, str], base_model: str
) -> None:
    plan = folder.plan
    summary = {
        "new": {"version": plan.new.label, "sha256": plan.new.sha256},
        "old": {"version": plan.old.label, "sha256": plan.old.sha256},
        "base_model": base_model,
        "inputs": read_json(folder.inputs_path),
        "prompts": len(plan.prompts.prompts),
        "prompts_left_out": dict(plan.prompts.left_out),
        "pairs": result.num_pairs,
        "pairs_withheld": result.withheld,
        "scorers": {
            name: {"identity": identities[name], **verdict_as_json(verdict)}
            for name, verdict in result.verdicts.items()
        },
    }
    write_atomically(folder.path / SUMMARY_FILE, (json.dumps(summary, indent=1) + "\n").encode())
