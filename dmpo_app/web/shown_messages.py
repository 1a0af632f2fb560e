"""Messages as browsers may see them: paths of this machine are cut down to their last names.

Cut are, in this order: folders that are known here, whatever is in their names; `file:` and `sqlite:` addresses; what
stands in quotes and begins like a path; and what looks like a path in running text, where a name may hold spaces as
long as a separator follows. A few words too many are cut before one folder too few. Addresses on the network, paths of
the API and words such as and/or and 1/2 stay.
"""

import os
import re
import sys
from functools import lru_cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]
_MIN_ROOT = 4
"""A known folder with a shorter path, such as `/` or `C:\\`, is no sign of anything."""
_KNOWN = "\0"

_MAX_LENGTH = 4000
"""Characters of a message that are shown: a longer one is for the log."""

_START = r"(?:[A-Za-z]:[\\/]+|\\\\+(?=[^\s\\])|~?/(?!/))"
_NAME = r"""[^\s'"`/\\:;,()<>|\[\]{}]"""
# Up to four words more before a separator, unless they are and/or or the like of 3/4. Possessive, to stay linear.
_DIRECTORY = rf"""{_NAME}++(?:[ ](?!and/or\b|\d{{1,3}}/\d{{1,3}}(?:[\s.,;)]|$)){_NAME}++){{0,4}}[\\/]++"""
_IN_TEXT = re.compile(rf"(?<![\w/.…-])(?!/api/){_START}(?:{_DIRECTORY})++({_NAME}*+)")
_ADDRESS = re.compile(r"""\b(?:file|sqlite(?:\+\w+)?):[\\/]+([^\s'"<>]*)""")
_QUOTED = re.compile(rf"""(['"`])(?!/api/)(?={_START})((?:(?!\1).)*+)\1""")


def without_paths(text: str) -> str:
    """Shorten paths in a message for browsers: of a file or folder of this machine only the last name is left."""
    text = text[:_MAX_LENGTH]
    for pattern in _known_folders():
        text = pattern.sub(lambda match: f"/{_KNOWN}/" if match["more"] else f"…/{match['name']}", text)
    text = _ADDRESS.sub(lambda match: f"…/{_last_name(match[1])}", text)
    text = _QUOTED.sub(lambda match: f"{match[1]}…/{_last_name(match[2])}{match[1]}", text)
    text = _IN_TEXT.sub(r"…/\1", text)
    return text.replace(f"/{_KNOWN}/", "…/")


def _last_name(path: str) -> str:
    return re.split(r"[\\/]", path)[-1]


@lru_cache(maxsize=8)
def _patterns(folders: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """A pattern for each folder, the longest first: its last name is the group `name`, a path below it has `more`."""
    patterns = []
    for folder in sorted({folder.rstrip("/\\") for folder in folders}, key=len, reverse=True):
        name = _last_name(folder)
        if len(folder) >= _MIN_ROOT and name:
            start = re.escape(folder.removesuffix(name))
            patterns.append(re.compile(rf"{start}(?P<name>{re.escape(name)})(?:(?P<more>[\\/]+)|(?![\w-]|\.\w))"))
    return tuple(patterns)


def _known_folders() -> tuple[re.Pattern[str], ...]:
    # Nothing here opens a file: a message may be that no more can be opened.
    named = (os.environ.get(name, "") for name in ("DMPO_HOME", "HOME", "USERPROFILE", "TMPDIR", "TEMP"))
    return _patterns((str(_PACKAGE), sys.prefix, *named, _current_folder()))


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was deleted
        return ""
