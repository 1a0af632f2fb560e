"""Sources through Hugging Face `datasets`: streamed, images as their stored bytes.

Only parquet, arrow and JSON are read: none of them can hold code. Data sets that need a script of their own or are
pickled are refused, by the library and here.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from dmpo_app.errors import SetupError, StudioError, hub_http_errors
from dmpo_app.exchange.readers.reader import ImageFolder, Row
from dmpo_app.exchange.readers.source import Bookmark, RowStream, fingerprint_of_files

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".arrow": "arrow"}
_ALLOWED_BUILDERS = frozenset(f"datasets.packaged_modules.{name}.{name}" for name in ("parquet", "json", "arrow"))
_SPLIT_NAMES = ("train", "test", "validation", "val")


class StreamedSource:
    """The PreferenceSource of a `datasets.IterableDataset`, which `open_dataset` makes anew each time."""

    def __init__(self, open_dataset: Callable[[], Any], *, name: str, fingerprint: str, folder: ImageFolder) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.folder = folder
        self._open_dataset = open_dataset
        try:
            self.columns: Sequence[str] = self._columns()
        except _reading_errors() as error:
            raise SetupError(f"{name} cannot be read ({type(error).__name__}: {error}); is the file whole?") from error

    def open(self, bookmark: Bookmark | None = None) -> RowStream:
        dataset = self._dataset()
        if bookmark is not None:
            dataset.load_state_dict(dict(bookmark))
        return _StreamedRows(dataset, self.name)

    def _dataset(self) -> Any:
        dataset = self._open_dataset()
        # Decoding is ours: a broken image must cost its pair and not the run.
        return dataset if dataset.features is None else dataset.decode(False)

    def _columns(self) -> list[str]:
        dataset = self._dataset()
        if dataset.column_names is not None:
            return list(dataset.column_names)
        first = next(iter(_StreamedRows(dataset, self.name)), None)
        if first is None:
            raise SetupError(f"{self.name} holds no rows")
        return list(first)


class _StreamedRows:
    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset = dataset
        self._name = name

    def __iter__(self) -> Iterator[Row]:
        errors = _reading_errors()
        rows = iter(self._dataset)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except errors as error:
                raise StudioError(
                    f"{self._name} could not be read further ({type(error).__name__}: {error}); what was read so far "
                    "is kept, run the same command again"
                ) from error
            yield row

    def bookmark(self) -> Bookmark:
        state: Bookmark = self._dataset.state_dict()
        return state


def local_source(path: Path, split: str) -> StreamedSource:
    """Open a file, a folder of files, or a folder of `save_to_disk` as a source. Raises SetupError."""
    datasets = _import_datasets()
    root = path if path.is_dir() else path.parent
    if _is_saved(path):
        saved_folder = path if (path / "state.json").is_file() else path / split
        if not saved_folder.is_dir():
            raise SetupError(f"{path} has no split {split!r}; it has {', '.join(sorted(_saved_splits(path)))}")
        files = sorted(saved_folder.glob("*.arrow"))
        return StreamedSource(
            lambda: datasets.load_from_disk(str(saved_folder)).with_format(None).to_iterable_dataset(),
            name=str(path),
            fingerprint=fingerprint_of_files(files, saved_folder),
            folder=ImageFolder(root),
        )
    files = _files(path, split)
    names = [str(file) for file in files]
    builder = _BUILDERS[files[0].suffix]
    return StreamedSource(
        lambda: datasets.load_dataset(builder, data_files={"rows": names}, split="rows", streaming=True),
        name=str(path),
        fingerprint=fingerprint_of_files(files, root),
        folder=ImageFolder(root),
    )


def hub_source(repo_id: str, split: str, config: str | None) -> StreamedSource:
    """Open a data set of the hub as a source, at its present commit. Raises SetupError."""
    datasets = _import_datasets()
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(repo_id).sha
        builder = datasets.load_dataset_builder(repo_id, config, revision=revision)
    except (HfHubHTTPError, HFValidationError) + _reading_errors() as error:  # noqa: RUF005 - mypy follows this form
        raise SetupError(
            f"the data set {repo_id} cannot be had from the hub ({type(error).__name__}: {error}); is the name right, "
            "the network up, and, where it is gated, HF_TOKEN set?"
        ) from error
    if type(builder).__module__ not in _ALLOWED_BUILDERS:
        raise SetupError(
            f"{repo_id} is stored as {type(builder).__module__.rpartition('.')[2]}; only parquet, arrow and JSON are "
            "read here. Convert it once where you trust it."
        )
    if builder.info.splits and split not in builder.info.splits:
        raise SetupError(f"{repo_id} has no split {split!r}; it has {', '.join(builder.info.splits)}")
    return StreamedSource(
        lambda: builder.as_streaming_dataset(split=split),
        name=repo_id,
        fingerprint=f"{repo_id}@{revision}:{config}:{split}",
        folder=ImageFolder(),
    )


def _files(path: Path, split: str) -> list[Path]:
    """List the data files of the split, all of one kind, by name."""
    if path.is_file():
        if path.suffix not in _BUILDERS:
            raise SetupError(f"{path} is not of a known kind; expected {', '.join(_BUILDERS)}")
        return [path]
    data_files = sorted(file for file in path.rglob("*") if file.suffix in _BUILDERS and not _is_hidden(file, path))
    split_files = [file for file in data_files if file.name.startswith(split)]
    if not split_files and any(file.name.startswith(_SPLIT_NAMES) for file in data_files):
        raise SetupError(
            f"no file in {path} begins with {split!r}; there are {', '.join(f.name for f in data_files[:5])}"
        )
    files = split_files or data_files
    suffixes = sorted({file.suffix for file in files})
    if len(suffixes) != 1:
        kinds = f"files of several kinds, {', '.join(suffixes)}" if suffixes else "none"
        raise SetupError(f"{path} holds {kinds}; expected .parquet, .jsonl or .json files, or name one file")
    return files


def _is_hidden(file: Path, folder: Path) -> bool:
    """True for a file in a hidden folder, such as a cache of the hub."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _is_saved(path: Path) -> bool:
    return path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file())


def _saved_splits(path: Path) -> list[str]:
    index_file = path / "dataset_dict.json"
    return list(json.loads(index_file.read_text(encoding="utf-8"))["splits"]) if index_file.is_file() else []


def _import_datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise SetupError(
            f"data sets are read with Hugging Face datasets, which is not installed ({error}); `pip install datasets`"
        ) from error
    datasets.disable_progress_bars()
    library: ModuleType = datasets
    return library


def _reading_errors() -> tuple[type[Exception], ...]:
    """The exceptions that streaming raises for damaged files and broken connections."""
    import pyarrow
    from datasets.exceptions import DatasetsError

    return (OSError, ValueError, *hub_http_errors(), pyarrow.ArrowException, DatasetsError)
