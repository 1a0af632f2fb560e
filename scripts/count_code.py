"""Counts of the package's code: modules, folders, imports, names, docstrings, functions; as a markdown table.

python scripts/count_code.py            the numbers of this checkout
python scripts/count_code.py FOLDER     the same for another checkout
"""

import ast
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

EXTENSION_POINTS = (
    "objective",
    "scoring",
    "diffusion/families",
    "exchange/readers",
    "web/routes",
    "store/migrations/versions",
)
"""Folders in which a file is a thing of its kind; they may have any number of entries."""
SHARED_NAMES = frozenset({"__init__", "__main__"})
HEADLESS = re.compile(r"(What|Which|How|Whether|Who|Where|Why)\b")


def entries(folder: Path) -> list[Path]:
    """The modules and folders of code directly in `folder`."""
    return [
        path
        for path in folder.iterdir()
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__" and any(path.rglob("*.py")))
    ]


def nodes(trees: dict[Path, ast.Module], kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[ast.AST]:
    return (node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, kind))


def first_sentences(trees: dict[Path, ast.Module]) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node) for node in nodes(trees, kinds))  # type: ignore[arg-type]
    return [text for text in texts if text]


def largest_folder(package: Path) -> tuple[int, str]:
    folders = [package, *(path for path in package.rglob("*") if path.is_dir() and any(path.glob("*.py")))]
    sizes = {path.relative_to(package).as_posix(): len(entries(path)) for path in folders}
    counted = [(size, name) for name, size in sizes.items() if name not in EXTENSION_POINTS and name != "."]
    return max(counted)


def lines_of(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1  # type: ignore[attr-defined,no-any-return]


def rows(package: Path) -> Iterator[tuple[str, str]]:
    """(what is counted, its number) of the package."""
    files = sorted(package.rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    imported = sum(map(lines_of, nodes(trees, (ast.Import, ast.ImportFrom))))
    functions = sorted(map(lines_of, nodes(trees, (ast.FunctionDef, ast.AsyncFunctionDef))))
    modules = Counter(path.stem for path in files if path.stem not in SHARED_NAMES)
    classes = Counter(node.name for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef))
    texts = first_sentences(trees)
    headless = [text for text in texts if HEADLESS.match(text)]
    size, name = largest_folder(package)
    yield "modules", str(len(files))
    yield "lines, lines a module", f"{lines:,}, {lines / len(files):.0f}"
    yield "top-level entries", str(len(entries(package)))
    yield "entries in the largest folder, extension points aside", f"{size} ({name})"
    yield "import lines of all lines", f"{imported / lines:.1%}"
    yield "module names used twice", _twice(modules)
    yield "class names used twice", _twice(classes)
    yield "docstrings that begin with What, Which, How, ...", f"{len(headless)} of {len(texts)}"
    p90 = functions[int(0.9 * len(functions))]
    yield "lines a function: median, p90, longest", f"{statistics.median(functions):.0f}, {p90}, {functions[-1]}"


def _twice(names: Counter[str]) -> str:
    repeated = sorted(name for name, count in names.items() if count > 1)
    return f"{len(repeated)} ({', '.join(repeated)})" if repeated else "0"


def main() -> int:
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    sys.stdout.write("| | |\n|---|---|\n")
    sys.stdout.writelines(f"| {label} | {number} |\n" for label, number in rows(checkout / "dmpo_app"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
