"""Fixtures of the folders whose tests run a model; their conftest files import them. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.loading import load_denoiser
from tests.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One torch thread: tiny models gain nothing from more, and the last bits depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def denoiser(tiny_model: Path) -> Denoiser:
    return load_denoiser(str(tiny_model), device="cpu", dtype="float32")
