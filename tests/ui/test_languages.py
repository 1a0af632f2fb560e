import json
import re
from pathlib import Path

import pytest

from dmpo_app.ui.assets import FOLDER

FILES = sorted((FOLDER / "lang").glob("*.json"))
ENGLISH: dict[str, str] = json.loads((FOLDER / "lang" / "en.json").read_text(encoding="utf-8"))
OTHERS = [path for path in FILES if path.stem != "en"]
_PLURAL = re.compile(r"_(zero|one|two|few|many|other)$")


def test_there_are_four_languages_and_the_page_knows_each() -> None:
    codes = {path.stem for path in FILES}
    assert codes == {"en", "de", "fr", "es"}
    listed = re.search(r"const CODES = (\[.*?\]);", (FOLDER / "lib" / "lang.js").read_text(encoding="utf-8"))
    assert listed is not None
    assert set(json.loads(listed[1])) == codes


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_language_has_every_key_with_the_same_values_to_fill_in(path: Path) -> None:
    words: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    assert list(words) == list(ENGLISH)
    assert [key for key, text in words.items() if not text.strip()] == []
    filled = {key: set(re.findall(r"\{\w+\}", text)) for key, text in words.items()}
    assert filled == {key: set(re.findall(r"\{\w+\}", text)) for key, text in ENGLISH.items()}


def test_every_key_the_scripts_name_is_in_the_files_and_the_other_way_round() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.js"))
    kept = {_PLURAL.sub("", key) for key in ENGLISH}
    asked = set(re.findall(r'\bt\("([a-z_.]+)"', source)) | set(re.findall(r'"data-t[a-z-]*": "([a-z_.]+)"', source))
    assert asked
    assert asked - kept == set()
    families = tuple(re.findall(r"`([a-z_]+[._])\$\{", source))  # such as `answer.${choice}`
    unused = {key for key in kept if f'"{key}"' not in source and not key.startswith(families)}
    assert unused == {"name"}  # of the language, for the list of languages
