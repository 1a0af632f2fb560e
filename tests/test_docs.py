"""What the documentation refers to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
