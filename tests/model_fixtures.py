"""Fixtures of the folders whose tests run a model; their conftest files import them. Importing this imports torch."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dmpo_app.diffusion.denoiser import Denoiser
from dmpo_app.diffusion.loading import load_denoiser
from tests.tiny_models.cases import CASES, Case
from tests.tiny_pipeline import make_tiny_pipeline

NUM_THREADS = int(os.environ.get("DMPO_TEST_THREADS", "1"))
"""torch's threads. Tiny models gain nothing from more than one; the tests pass with any number that stays the same."""


@pytest.fixture(autouse=True)
def fixed_threads() -> Iterator[None]:
    """One torch thread unless DMPO_TEST_THREADS says otherwise: last bits depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def denoiser(tiny_model: Path) -> Denoiser:
    return load_denoiser(str(tiny_model), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def case_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """The folder of a case's model, built once a session."""
    built: dict[str, Path] = {}

    def folder_of(case: Case) -> Path:
        if case.name not in built:
            built[case.name] = case.make(tmp_path_factory.mktemp("models") / case.name)
        return built[case.name]

    return folder_of


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def folder(case: Case, case_folder: Callable[[Case], Path]) -> Path:
    return case_folder(case)
