"""The tree of the code with one line a file, from the first sentence of each file: docs/code.md.

python scripts/code_tree.py            writes it
python scripts/code_tree.py --check    says whether it is up to date
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "code.md"
FOLDERS = ("dmpo_app", "benchmarks", "scripts")
HEAD = """# The code, a line a file

`python scripts/code_tree.py` writes this page from the files' own first sentences. docs/architecture.md says how the
parts work together, and in which direction they may import.
"""


def first_sentence(path: Path) -> str:
    """Of a module's docstring or of the comment that a script begins with; "" without any."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(source)) or ""
    else:
        lines = [line for line in source.splitlines() if not line.startswith(("#!", "// @ts-check"))]
        block = next((lines[:i] for i, line in enumerate(lines) if not re.match(r"^(//|#|/\*)", line)), [])
        text = "\n".join(re.sub(r"^(//|#|/\*+)\s?|\*/$", "", line) for line in block)
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s|:$", paragraph)[0].strip()


def lines_of(folder: Path, depth: int) -> Iterator[str]:
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name))
    for path in entries:
        if path.name.startswith((".", "__pycache__", "node_modules")):
            continue
        indent = "  " * depth
        if path.is_dir():
            if any(path.rglob("*.py")) or any(path.rglob("*.js")):
                init = path / "__init__.py"
                said = first_sentence(init) if init.exists() else ""
                yield f"{indent}- **{path.name}/** {said}".rstrip()
                yield from lines_of(path, depth + 1)
        elif path.suffix in {".py", ".js", ".ts", ".css", ".sh"} and path.name != "__init__.py":
            yield f"{indent}- `{path.name}` {first_sentence(path)}".rstrip()


def page() -> str:
    parts = [HEAD]
    for name in FOLDERS:
        parts.append(f"## {name}/\n\n" + "\n".join(lines_of(ROOT / name, 0)) + "\n")
    return "\n".join(parts)


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write("docs/code.md is not what the files say; run python scripts/code_tree.py\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
