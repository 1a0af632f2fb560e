"""The prompts that two versions are compared on, from a file of any kind that the studio reads, and their seeds."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dmpo_app.domain.limits import MAX_SEED, ParserLimits
from dmpo_app.domain.prompt import MAX_PROMPT, has_control_characters, normalize_text
from dmpo_app.errors import BadInputError
from dmpo_app.labeling.prompt_files import parse_file
from dmpo_app.parsing.prompt_rows import FileRow


@dataclass(frozen=True, slots=True)
class PromptList:
    """Different prompts in the file's order, and how many rows were left out by reason."""

    prompts: tuple[str, ...]
    left_out: Counter[str]

    @property
    def sha256(self) -> str:
        """The hash (hex) of the prompts in their order."""
        return hashlib.sha256("\0".join(self.prompts).encode("utf-8", "surrogatepass")).hexdigest()


def read_prompt_list(path: Path, *, column: str | None, limit: int | None, limits: ParserLimits) -> PromptList:
    """Read the first `limit` prompts of a file, in a process with limits. Raises BadInputError, SetupError."""
    chosen = select_prompts(parse_file(path, column=column, limits=limits), limit=limit)
    if not chosen.prompts:
        raise BadInputError(f"{path} holds no prompt that can be used; expected one a line, or a column of them")
    return chosen


def select_prompts(rows: Iterable[FileRow], *, limit: int | None) -> PromptList:
    """Select the different prompts among rows; what cannot be a prompt is counted."""
    prompts: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    for row in rows:
        if limit is not None and len(prompts) >= limit:
            break
        reason = _refusal(row.prompt)
        text = normalize_text(row.prompt) if isinstance(row.prompt, str) and not reason else ""
        if reason or text in prompts:
            left_out[reason or "the same prompt again"] += 1
        else:
            prompts[text] = None
    return PromptList(tuple(prompts), left_out)


def _refusal(prompt: object) -> str:
    """The reason why a row cannot be a prompt; empty for one that can."""
    if not isinstance(prompt, str) or not prompt.strip():
        return "no text"
    if len(normalize_text(prompt)) > MAX_PROMPT:
        return f"more than {MAX_PROMPT} characters"
    return "control characters" if has_control_characters(prompt) else ""


def image_seed(prompt: str, index: int, seed: int) -> int:
    """The seed of a prompt's image number `index`: its own for each prompt, the same in every file and version."""
    digest = hashlib.sha256(f"{seed}\0{index}\0{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % (MAX_SEED + 1)
