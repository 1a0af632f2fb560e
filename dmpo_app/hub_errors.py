"""What the Hugging Face Hub's client raises, whichever HTTP library it was built on, and what to say of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dmpo_app.errors import StudioError


def hub_http_errors() -> tuple[type[Exception], ...]:
    """The client's own HTTP error and, among its bases, that of the library beneath: httpx under huggingface_hub 1,
    httpx2 under 2. Imports the client."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception))
    return tuple(kind for kind in bases if kind.__name__.endswith("HTTPError"))


def hub_refusals() -> tuple[type[Exception], ...]:
    """What its client raises when the Hub is out of reach, or takes neither name, token nor content."""
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    return (*hub_http_errors(), HFValidationError, LocalTokenNotFoundError, OSError)


@contextmanager
def pushing_to(repo_id: str) -> Iterator[None]:
    """Turn the client's errors inside into StudioError that says what to look at."""
    try:
        yield
    except hub_refusals() as error:
        raise StudioError(
            f"{repo_id} could not be pushed to ({type(error).__name__}: {error}); is the name right, the network up, "
            "and a token that may write set (HF_TOKEN, or `hf auth login`)?"
        ) from error
