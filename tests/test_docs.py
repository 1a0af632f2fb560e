"""References in the documentation: paths, options, settings and links are there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceHardware

from tests.studio_process import PROJECT_ROOT

PAGES = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
PATH = re.compile(
    r"(?<![\w./-])((?:[\w.-]+/)*[\w-]+\.(?:py|js|css|sh)|"
    r"(?:dmpo_app|tests|scripts|benchmarks|examples|docs|requirements)/[\w./-]*\w)(?![\w/-])"
)
PACKAGES = "|".join(sorted(path.parent.name for path in (PROJECT_ROOT / "dmpo_app").glob("*/__init__.py")))
IN_THE_PACKAGE = re.compile(rf"(?<![\w./-])((?:{PACKAGES})/\w[\w/]*)(?![\w/.-]*\.\w)")
"""`training/loop/step`: a module, or a folder, named from the package."""
MODULE = re.compile(r"(?<![\w./-])(?:dmpo_app|tests|benchmarks|examples)(?:\.(?!py\b)\w+)+")
TARGET = re.compile(r"`make ([a-z][a-z-]*)")
OF_OTHERS = {
    "train_diffusion_dpo.py", "train_diffusion_dpo_sdxl.py", "examples/research_projects/diffusion_dpo",  # diffusers
    "sampling.py",  # of FLUX
    "json.py",  # of whoever works in the current folder
    "dmpo_app/assets",  # in the wheel alone
    "ImageReward.py",  # of ImageReward
}  # fmt: skip
TEST = re.compile(r"`(tests/[\w/]+(?:\.py)?)?(?:::(test_\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    missing = [link for link, _ in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_every_image_of_the_documents_is_shown_by_a_page() -> None:
    texts = "".join(page.read_text() for page in PAGES)
    images = sorted((PROJECT_ROOT / "docs" / "images").iterdir())
    assert [image.name for image in images if f"images/{image.name})" not in texts] == []


@cache
def project_files() -> frozenset[str]:
    """Every file of the project's own folders and every folder, by its path from the root, without a leading dot."""
    top = ("dmpo_app", "tests", "scripts", "benchmarks", "examples", "docs", "requirements", ".ci")
    paths = [PROJECT_ROOT / name for name in top]
    paths += [path for folder in paths for path in folder.rglob("*") if "__pycache__" not in path.parts]
    paths += [path for path in PROJECT_ROOT.iterdir() if path.is_file()]
    return frozenset(path.relative_to(PROJECT_ROOT).as_posix() for path in paths)


@cache
def ends_of(files: frozenset[str]) -> frozenset[str]:
    """The paths, and what remains of each when folders are cut off at its front."""
    return frozenset(
        name[cut:] for name in files for cut in [0, *(i + 1 for i, sign in enumerate(name) if sign == "/")]
    )


def missing_names(text: str, files: frozenset[str]) -> list[str]:
    """The paths, modules and targets of make in a text that are not there."""
    ends, makefile = ends_of(files), (PROJECT_ROOT / "Makefile").read_text()
    paths = [path for path in PATH.findall(text) if path not in OF_OTHERS and path not in ends]
    inside = [path for path in IN_THE_PACKAGE.findall(text) if path.strip("/") not in ends and f"{path}.py" not in ends]
    modules = [name for name in MODULE.findall(text) if not is_importable(name, files)]
    targets = [f"make {name}" for name in TARGET.findall(text) if f"\n{name}:" not in makefile]
    return [*paths, *inside, *modules, *targets]


def is_importable(dotted: str, files: frozenset[str]) -> bool:
    """True where a module has this name, or one has what stands before the last dot and defines the rest."""
    path, _, name = dotted.replace(".", "/").rpartition("/")
    if f"{path}/{name}.py" in files or f"{path}/{name}" in files:
        return True
    return f"{path}.py" in files and f"{name}" in (PROJECT_ROOT / f"{path}.py").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_code_that_a_page_names_is_there(page: Path) -> None:
    files = project_files()
    spans = IN_BACKTICKS.findall(page.read_text())
    assert [name for span in spans for name in missing_names(f"`{span}`", files)] == []


def test_every_path_of_code_that_a_docstring_names_is_there() -> None:
    files = project_files()
    missing = []
    for file in sorted(name for name in files if name.endswith(".py") and name != "tests/test_docs.py"):
        for node in ast.walk(ast.parse((PROJECT_ROOT / file).read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                missing += [(file, name) for name in missing_names(ast.get_docstring(node) or "", files)]
    assert missing == []


def test_a_path_that_is_not_there_is_found() -> None:
    text = "see dmpo_app/gone.py, `gone.js`, training/gone, dmpo_app.training.gone.step and `make gone`"
    gone = ["dmpo_app/gone.py", "gone.js", "training/gone", "dmpo_app.training.gone.step", "make gone"]
    assert missing_names(text, project_files()) == gone
    there = "dmpo_app/io/files.py, step.py, training/loop, dmpo_app.io and `make test`"
    assert missing_names(there, project_files()) == []


def test_every_test_that_the_security_page_names_exists() -> None:
    text = (PROJECT_ROOT / "docs" / "security.md").read_text()
    named, file = 0, PROJECT_ROOT
    for path, name in TEST.findall(text):
        if not path and not name:
            continue
        if path:
            file = PROJECT_ROOT / path
            assert file.exists(), path
        if name:
            assert f"def {name}(" in file.read_text(), f"{file.name}::{name}"
        named += 1
    assert named > 20


def test_the_front_matter_is_what_a_space_needs_and_fits_the_lock() -> None:
    matter = yaml.safe_load((PROJECT_ROOT / "README.md").read_text().split("---")[1])
    locked = (PROJECT_ROOT / "requirements.txt").read_text()
    assert matter["sdk"] == "gradio"
    assert f"gradio=={matter['sdk_version']}\n" in locked
    assert matter["python_version"] in ("3.11", "3.12", "3.13")
    assert (PROJECT_ROOT / matter["app_file"]).is_file()
    assert matter["hf_oauth"] is True
    assert len(matter["short_description"]) <= 60
    assert matter["suggested_hardware"] in {one.value for one in SpaceHardware}
