"""Words and phrases that no prompt may hold."""

from __future__ import annotations

from pathlib import Path

from dmpo_app.domain.prompt_text import fold
from dmpo_app.errors import SetupProblem


class BlockList:
    """Phrases, matched as whole words of the folded text: case, accents and punctuation make no difference."""

    def __init__(self, phrases: list[str]) -> None:
        self._phrases = [f" {folded} " for folded in map(fold, phrases) if folded]

    @classmethod
    def read(cls, path: Path | None) -> BlockList:
        """A text file, one phrase a line; blank lines and lines starting with # are left out. None: nothing is blocked.

        Raises SetupProblem when it cannot be read: a campaign that asked for a block list does not run without it.
        """
        if path is None:
            return cls([])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupProblem(
                f"the list of blocked words {path} cannot be read: {error}; expected UTF-8 text, one word a line. "
                "It is DMPO_LABELING__BLOCKED_WORDS"
            ) from error
        return cls([line for line in lines if line.strip() and not line.startswith("#")])

    def blocks(self, folded: str) -> bool:
        """Whether a folded text holds one of them."""
        text = f" {folded} "
        return any(phrase in text for phrase in self._phrases)
