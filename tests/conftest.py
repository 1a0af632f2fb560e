"""The marker `slow`, from the list tests/slow_tests.txt. With `-m "not slow"` files listed whole are not imported."""

from pathlib import Path

import pytest

FAST = "not slow"
LIST = Path(__file__).parent / "slow_tests.txt"


def slow_prefixes() -> tuple[str, ...]:
    """Folders (ending in a slash), files and single tests."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line)


PREFIXES = slow_prefixes()


def is_slow(node_id: str) -> bool:
    """True for a test that is listed, by itself (with all its parameters) or with its file or folder."""
    return any(
        node_id == prefix or node_id.startswith(prefix if prefix.endswith("/") else (f"{prefix}::", f"{prefix}["))
        for prefix in PREFIXES
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item.nodeid) or any(item.get_closest_marker(kind) for kind in ("browser", "soak")):
            item.add_marker(pytest.mark.slow)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """True for files and folders that are slow as a whole, where only the others are asked for."""
    if config.option.markexpr != FAST:
        return None
    path = collection_path.relative_to(config.rootpath).as_posix()
    return True if path in PREFIXES or f"{path}/" in PREFIXES else None
