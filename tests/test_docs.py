"""References in the documentation: paths, options, settings and links are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceHardware

from tests.studio_process import PROJECT_ROOT

PAGES = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
TEST = re.compile(r"`(tests/[\w/]+(?:\.py)?)?(?:::(test_\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    missing = [link for link, _ in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


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
