"""No prompt, as a base model is guided away from it: what takes a dropped caption's place.

The trainer has no text encoder. They are loaded for this once, before the denoiser is, and what they give is kept in a
file; they never are where no caption is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dmpo_app.diffusion.devices import resolve_device
from dmpo_app.diffusion.encoder import Encoder
from dmpo_app.diffusion.families.protocol import Conditioning
from dmpo_app.diffusion.loading import free_memory, resolve_dtype
from dmpo_app.diffusion.tensor_files import dump_conditioning, load_conditioning
from dmpo_app.io import write_atomically

FOLDER = "empty-prompts"


@dataclass(frozen=True, slots=True)
class EmptyPrompt:
    """A file, and how to load the encoders that make it. Called, it gives the tensors, without batch dimension.

    Several processes that find no file each write the same bytes, whole; `prepare` in one of them spares the others.
    """

    path: Path
    load_encoder: Callable[[], Encoder]

    @classmethod
    def of_home(cls, home: Path, source: str, base_fingerprint: str, *, device: str, dtype: str) -> EmptyPrompt:
        """That of a base model in a home; each precision has a file of its own."""
        precision = str(resolve_dtype(dtype, resolve_device(device))).removeprefix("torch.")
        return cls(
            home / FOLDER / f"{base_fingerprint[:16]}-{precision}.safetensors",
            lambda: Encoder.load(source, device=device, dtype=dtype, resolution=None),
        )

    def __call__(self) -> Conditioning:
        """Raises StudioError for a damaged file; like `prepare` where there is none."""
        self.prepare()
        return load_conditioning(self.path.read_bytes())

    def prepare(self) -> None:
        """See to it that the file is there; the encoders are gone afterwards.

        Raises like `Encoder.load`, StorageFull.
        """
        if not self.path.exists():
            self.keep_from(self.load_encoder())
            free_memory()

    def keep_from(self, encoder: Encoder) -> None:
        """Write the file with encoders that are in memory anyway. Raises StorageFull."""
        write_atomically(self.path, dump_conditioning(encoder.empty_conditioning()))
