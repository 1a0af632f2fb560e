"""Downloads of base models from the Hugging Face Hub: the files that are fetched, and errors in words that help.

huggingface_hub is imported when a hub id is really used; a local folder never needs it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dmpo_app.errors import ModelUnavailableError, hub_http_errors
from dmpo_app.io.files import is_disk_error
from dmpo_app.io.liveness import phase
from dmpo_app.io.processes import causes, is_passing_error

BASE_MODEL = "DMPO_BASE_MODEL"
_PASSING_STATUS = (408, 425, 429)
_PASSING_KINDS = frozenset({"OutOfMemoryError", "TransportError", "ConnectionError", "TimeoutError", "Timeout"})
"""Kinds of errors, by name: of torch without memory on a GPU, and of HTTP clients without a network."""


def fetch_index(repo_id: str) -> Path:
    """The repository's `model_index.json`: from the cache, or downloaded. Raises ModelUnavailableError."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    with _translate_hub_errors(repo_id):
        cached = try_to_load_from_cache(repo_id, "model_index.json")
        return Path(cached if isinstance(cached, str) else hf_hub_download(repo_id, "model_index.json"))


def cached_snapshot(repo_id: str, *, setting: str = BASE_MODEL) -> Path | None:
    """The folder the cache holds of this repository, complete or not; None without one. Never uses the network.

    What was downloaded once is used from then on: a repository that moves must not start another lineage by itself.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _translate_hub_errors(repo_id, setting):
        try:
            return Path(snapshot_download(repo_id, local_files_only=True))
        except LocalEntryNotFoundError:
            return None


def fetch_snapshot(repo_id: str, weight_stems: Sequence[str]) -> Path:
    """Download the newest revision's JSON, text and wanted safetensors files and return their folder.

    `weight_stems` are paths without ending, such as `unet/diffusion_pytorch_model`; their other variants (fp16, EMA,
    pickle) are left where they are. Raises ModelUnavailableError.
    """
    return fetch_files(repo_id, download_patterns(weight_stems))


def fetch_files(repo_id: str, patterns: Sequence[str], *, setting: str = BASE_MODEL) -> Path:
    """Download the newest revision's files that match `patterns` and return their folder; the rest stays where it is.

    `setting` is what a message tells the user to change. Raises ModelUnavailableError.
    """
    from huggingface_hub import snapshot_download

    with phase(f"downloading {repo_id}"), _translate_hub_errors(repo_id, setting):
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns)))


def is_passing_load_error(error: BaseException) -> bool:
    """True when loading a model failed for a reason that passes, so that trying again is right.

    Too many open files, too little memory, of the processor or a GPU, a full disk, a network or a Hub out of reach. A
    missing folder, a wrong family, a refused name or token stay what they are.
    """
    return any(is_passing_error(cause) or _is_passing_by_kind(cause) for cause in causes(error))


def _is_passing_by_kind(error: BaseException) -> bool:
    # By name: torch and the hub's client are not imported to say that an error is not theirs.
    names = {kind.__name__ for kind in type(error).__mro__}
    if "HfHubHTTPError" in names:
        status = getattr(getattr(error, "response", None), "status_code", None)
        return isinstance(status, int) and (status >= 500 or status in _PASSING_STATUS)
    if isinstance(error, OSError) and is_disk_error(error):
        return True
    if type(error) is RuntimeError and "memory" in str(error) and "alloc" in str(error):  # torch's, of the processor
        return True
    return "OfflineModeIsEnabled" not in names and not names.isdisjoint(_PASSING_KINDS)


def download_patterns(weight_stems: Sequence[str]) -> list[str]:
    """Glob patterns of the files to download for these weight files."""
    patterns = ["model_index.json", "sampling.json", "*/config.json", "scheduler/*.json", "feature_extractor/*.json"]
    patterns += ["tokenizer*/*.json", "tokenizer*/*.txt", "tokenizer*/*.model"]
    for stem in weight_stems:
        patterns += [f"{stem}.safetensors", f"{stem}-*.safetensors", f"{stem}.safetensors.index.json"]
    return patterns


@contextmanager
def _translate_hub_errors(repo_id: str, setting: str = BASE_MODEL) -> Iterator[None]:
    """Turn the hub client's errors into ModelUnavailableError that says what to do."""
    from huggingface_hub import errors as hub_errors

    connection_errors: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, *hub_http_errors())
    try:
        yield
    except hub_errors.GatedRepoError as error:
        raise ModelUnavailableError(
            f"{repo_id} is behind terms of use; accept them on https://huggingface.co/{repo_id}, then `hf auth login`"
        ) from error
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        raise ModelUnavailableError(
            f"{repo_id} is neither a folder here nor a public model on the Hugging Face Hub; check {setting} "
            "(a private model needs `hf auth login`)"
        ) from error
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled) as error:
        raise _hub_unreachable(repo_id, setting, error) from error
    except hub_errors.EntryNotFoundError as error:
        raise ModelUnavailableError(
            f"{repo_id} holds no model_index.json; a repository in the diffusers format is needed"
        ) from error
    except connection_errors as error:
        raise _hub_unreachable(repo_id, setting, error) from error
    except OSError as error:
        raise ModelUnavailableError(f"{repo_id} could not be downloaded: {error}") from error


def _hub_unreachable(repo_id: str, setting: str, error: Exception) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{repo_id} is not on this machine and the Hugging Face Hub cannot be reached; connect to the network for the "
        f"first start, or set {setting} to a local folder ({type(error).__name__})"
    )
