"""Sources through Hugging Face `datasets`: data sets of the hub, and objects of the library in a program.

Only parquet, arrow and JSON are read from the hub: none of them can hold code. Data sets that need a script of their
own or are pickled are refused, by the library and here.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from types import ModuleType
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from dmpo_app.domain.limits import ParserLimits
from dmpo_app.errors import SetupError, StudioError, hub_http_errors
from dmpo_app.exchange.readers.data_files import KINDS, DataFile, FilesSource, suffixes
from dmpo_app.exchange.readers.reader import ImageFolder, Row
from dmpo_app.exchange.readers.source import Bookmark, RowStream
from dmpo_app.parsing.limits import clean_words

_ALLOWED_BUILDERS = frozenset(f"datasets.packaged_modules.{name}.{name}" for name in ("parquet", "json", "arrow"))


class StreamedSource:
    """The PreferenceSource of a `datasets.IterableDataset`, which `open_dataset` makes anew each time."""

    has_own_bookmarks = True

    def __init__(self, open_dataset: Callable[[], Any], *, name: str, fingerprint: str, folder: ImageFolder) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.folder = folder
        self._open_dataset = open_dataset
        try:
            self.columns: Sequence[str] = self._columns()
        except _reading_errors() as error:
            raise SetupError(f"{name} cannot be read ({type(error).__name__}: {error}); is the file whole?") from error

    def open(self, bookmark: Bookmark | None = None, _columns: Collection[str] | None = None, /) -> RowStream:
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


class HubSource(FilesSource):
    """The FilesSource of a split of a data set on the hub, at the commit `revision`."""

    def __init__(self, files: Sequence[DataFile], limits: ParserLimits, *, name: str, revision: str, part: str) -> None:
        self.revision = revision
        super().__init__(
            files, limits, name=name, fingerprint=lambda: f"{name}@{revision}:{part}", folder=ImageFolder()
        )


def hub_source(
    repo_id: str, split: str, config: str | None, limits: ParserLimits, *, revision: str | None = None
) -> HubSource:
    """Open a data set of the hub as a source, at a commit, by default its present one. Raises SetupError.

    `datasets` says which files a split is made of; they are read as files on a disk are.
    """
    datasets = _import_datasets()
    from huggingface_hub import HfApi, HfFileSystem

    try:
        revision = revision or str(HfApi().dataset_info(repo_id).sha)
        builder = datasets.load_dataset_builder(repo_id, config, revision=revision)
    except (HfHubHTTPError, HFValidationError) + _reading_errors() as error:  # noqa: RUF005 - mypy follows this form
        raise SetupError(
            f"the data set {repo_id} cannot be had from the hub ({type(error).__name__}: {clean_words(error)}); is the "
            "name right, the network up, and, where it is gated, HF_TOKEN set?"
        ) from error
    if type(builder).__module__ not in _ALLOWED_BUILDERS:
        raise SetupError(
            f"{repo_id} is stored as {type(builder).__module__.rpartition('.')[2]}; only parquet, arrow and JSON are "
            "read here. Convert it once where you trust it."
        )
    data_files = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
    if split not in data_files:
        raise SetupError(f"{repo_id} has no split {split!r}; it has {', '.join(data_files) or 'none'}")
    return HubSource(
        [_hub_file(HfFileSystem(), str(address)) for address in data_files[split]],
        limits,
        name=repo_id,
        revision=revision,
        part=f"{config}:{split}",
    )


def _hub_file(file_system: Any, address: str) -> DataFile:
    """A file of the hub, opened over the network. Raises SetupError for one that is not of a known kind."""
    suffix, compression = suffixes(address)
    if suffix not in KINDS:
        raise SetupError(f"{address} is not of a known kind; expected {', '.join(KINDS)}")
    path = address.removeprefix("hf://")
    num_bytes = int(file_system.info(path)["size"])
    return DataFile(address, KINDS[suffix], num_bytes, lambda: file_system.open(path, "rb"), compression)


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
