"""Starter pairs: a zip of ready-made pairs, so that a fresh home can be voted on before a model is loaded.

`manifest.json` names the base model's fingerprint and, for each pair, its prompt, embeddings and two images with their
provenance; the other members are PNG and safetensors files named by their sha256.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dmpo_app.domain.lineage import NewImage, NewPair, PairSource, Provenance
from dmpo_app.errors import SetupError
from dmpo_app.io.files import sha256_hex

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class StarterSet:
    """A set of starter pairs. `fingerprint`: of the base model the images were made with."""

    fingerprint: str
    pairs: tuple[NewPair, ...]


def read_starter_pairs(path: Path) -> StarterSet:
    """Read the zip at `path`. Raises SetupError when it is not one or a member's hash is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            pairs = tuple(_read_pair(archive, entry) for entry in manifest["pairs"])
            return StarterSet(fingerprint=manifest["fingerprint"], pairs=pairs)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise SetupError(
            f"the starter pairs in {path} cannot be read ({error}); restore the file or set DMPO_POOL__STARTER_PAIRS"
        ) from error


def write_starter_pairs(path: Path, fingerprint: str, pairs: Sequence[NewPair]) -> None:
    """Write the zip that `read_starter_pairs` reads; the same pairs give the same bytes."""
    members: dict[str, bytes] = {}

    def add_member(content: bytes, suffix: str) -> str:
        name = sha256_hex(content) + suffix
        members[name] = content
        return name

    def image_entry(image: NewImage) -> dict[str, Any]:
        if image.latents is None:
            raise ValueError("a starter image needs its latents: a round is trained on them")
        return {
            "png": add_member(image.png, ".png"),
            "latents": add_member(image.latents, ".safetensors"),
            "width": image.width,
            "height": image.height,
            "provenance": asdict(image.provenance),
        }

    entries = [
        {
            "prompt": pair.prompt,
            "prompt_embeds": add_member(pair.prompt_embeds, ".safetensors"),
            "a": image_entry(pair.image_a),
            "b": image_entry(pair.image_b),
        }
        for pair in pairs
    ]
    members[MANIFEST] = json.dumps({"fingerprint": fingerprint, "pairs": entries}, indent=1).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name), members[name], compress_type=zipfile.ZIP_DEFLATED)


def _read_pair(archive: zipfile.ZipFile, entry: dict[str, Any]) -> NewPair:
    return NewPair(
        prompt=entry["prompt"],
        image_a=_read_image(archive, entry["a"]),
        image_b=_read_image(archive, entry["b"]),
        prompt_embeds=_read_verified(archive, entry["prompt_embeds"]),
        source=PairSource.STARTER,
    )


def _read_image(archive: zipfile.ZipFile, entry: dict[str, Any]) -> NewImage:
    return NewImage(
        png=_read_verified(archive, entry["png"]),
        width=entry["width"],
        height=entry["height"],
        provenance=Provenance(**entry["provenance"]),
        latents=_read_verified(archive, entry["latents"]),
    )


def _read_verified(archive: zipfile.ZipFile, name: str) -> bytes:
    content = archive.read(name)
    if sha256_hex(content) != name.split(".")[0]:
        raise ValueError(f"member {name} does not have the sha256 it is named by")
    return content
