"""The tree of the code with one line a file, from the first sentence of each file: docs/code.md.

python scripts/code_tree.py            writes it
python scripts/code_tree.py --check    fails where it is out of date, or where a docstring does not name its subject
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "code.md"
FOLDERS = ("dmpo_app", "benchmarks", "scripts")
PYTHON = (*FOLDERS, "examples", "tests")
QUESTION_WORD = re.compile(r"(What|Which|How|Whether|Who|Whose|Where|Why)\b")
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


def nameless(path: Path) -> Iterator[str]:
    """The docstrings of a file that begin with a question word: their first sentence does not name its subject."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            if QUESTION_WORD.match(docstring):
                line = getattr(node, "lineno", 1)
                yield f"{path.relative_to(ROOT)}:{line} {docstring.splitlines()[0]}"


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
    faults = [line for name in PYTHON for path in sorted((ROOT / name).rglob("*.py")) for line in nameless(path)]
    if faults:
        sys.stderr.write("These docstrings begin with a question word, not with what they document:\n")
        sys.stderr.writelines(f"{fault}\n" for fault in faults)
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        faults.append("docs/code.md")
        sys.stderr.write("docs/code.md is not what the files say; run python scripts/code_tree.py\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
