"""What a broken connection to the Hugging Face Hub raises, whichever HTTP library its client was built on."""

from __future__ import annotations


def hub_http_errors() -> tuple[type[Exception], ...]:
    """The client's own HTTP error and, among its bases, that of the library beneath: httpx under huggingface_hub 1,
    httpx2 under 2. Imports the client."""
    from huggingface_hub.errors import HfHubHTTPError

    bases = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception))
    return tuple(kind for kind in bases if kind.__name__.endswith("HTTPError"))
