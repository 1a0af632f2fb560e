"""Names of the package that nothing uses: module-private ones unused in their module, public ones only tests use.

vulture compares names over the whole project, so it does not see a copy that was left behind under a name that is used
elsewhere. This follows the imports.

python scripts/unused_names.py            prints them and fails if there are any
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dmpo_app"
USERS = (PACKAGE, "benchmarks", "examples", "scripts", "app.py")
"""The code that counts as a use of a public name of the package. The tests do not."""
PRIVATE_CHECKED = (*USERS, "tests")
KEPT = frozenset(
    {
        # Alembic reads these in every revision.
        "revision",
        "down_revision",
        "upgrade",
        "downgrade",
        # diffusion/families/registry.py imports the module of a family by its name and takes this from it.
        "FAMILY",
        # What the front door is made of: rows in memory, and a studio started from a script.
        "RowsSource",
        "MemorySource",
        "PAIRS_READER",
        "dataset_source",
        "Studio",
    }
)
"""Names that are used where this cannot look, each with the user."""


@dataclass
class Module:
    """A module's top-level definitions and what it takes from other modules."""

    path: Path
    name: str
    tree: ast.Module
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    imported: set[tuple[str, str]] = field(default_factory=set)
    """(module, name) of `from module import name`, and (module, attribute) of `module.attribute`."""


def paths_of(entries: tuple[str, ...]) -> Iterator[Path]:
    for entry in entries:
        path = ROOT / entry
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def read(path: Path) -> Module:
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = Module(path, dotted, ast.parse(path.read_text(encoding="utf-8")))
    for statement in module.tree.body:
        for name in defined_names(statement):
            module.definitions[name] = statement
    add_imports(module)
    return module


def defined_names(statement: ast.stmt) -> Iterator[str]:
    """Of functions, classes and plain assignments; a decorated definition is used by its decorator."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        if not any(is_registering(decorator) for decorator in statement.decorator_list):
            yield statement.name
    elif isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def is_registering(decorator: ast.expr) -> bool:
    """`@app.command()`, `@router.get(...)`: an attribute of an object that keeps the function."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Attribute) and not ast.unparse(called).startswith(("functools.", "contextlib."))


def add_imports(module: Module) -> None:
    """Note `from a import b`, and `b.c` where b may be a module: then c is taken from it."""
    aliases: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                module.imported.add((node.module, alias.name))
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.split(".")[0]] = alias.name
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node).split(".")
            if dotted[0] in aliases:
                full = ".".join([aliases[dotted[0]], *dotted[1:]])
                module.imported.add((full.rpartition(".")[0], node.attr))


def used_in_itself(module: Module, name: str) -> bool:
    """Anywhere in the module outside its own definition, also in a string (an annotation, `__all__`)."""
    own = module.definitions[name]
    for statement in module.tree.body:
        if statement is own and not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                return True
            if isinstance(node, ast.Constant) and node.value == name:
                return True
    return False


def unused_private(module: Module) -> Iterator[str]:
    for name in module.definitions:
        if name.startswith("_") and not name.startswith("__") and not used_in_itself(module, name):
            yield name


def unused_public(module: Module, taken: set[tuple[str, str]], text_of_users: str) -> Iterator[str]:
    """Public names that their module does not use and no other code imports, from it or from a package around it."""
    packages = [module.name.rsplit(".", depth)[0] for depth in range(module.name.count(".") + 1)]
    for name in module.definitions:
        if name.startswith("_") or name in KEPT or used_in_itself(module, name):
            continue
        if any((package, name) in taken for package in packages) or f"{module.name}:{name}" in text_of_users:
            continue
        yield name


def problems() -> Iterator[str]:
    modules = {path: read(path) for path in paths_of(PRIVATE_CHECKED)}
    users = [module for path, module in modules.items() if not path.is_relative_to(ROOT / "tests")]
    taken = {use for module in users for use in module.imported}
    text_of_users = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for module in modules.values():
        where = module.path.relative_to(ROOT)
        for name in unused_private(module):
            yield f"{where}:{module.definitions[name].lineno}: {name} is private and unused in its module"
        if module.name.startswith(f"{PACKAGE}."):
            for name in unused_public(module, taken, text_of_users):
                yield f"{where}:{module.definitions[name].lineno}: {name} is used by tests alone, or by nothing"


def main() -> int:
    """Print every such name; 1 if there is one."""
    lines = list(problems())
    print("\n".join(lines) or "no unused name")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
