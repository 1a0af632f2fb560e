"""`dmpo health`: the address of the studio that the settings name, and a request that tells if it is alive."""

from http.client import HTTPException
from ipaddress import ip_address
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, build_opener

from dmpo_app.errors import BadInputError, StudioError
from dmpo_app.settings import Settings
from dmpo_app.web.http_server import page_url

_PATHS = ("healthz", "api/v1/status")
"""The second for studios that do not know the first."""


def studio_url(settings: Settings) -> str:
    """The address, as far as one on this machine needs it, of a studio with these settings; ends in a slash.

    Raises BadInputError for port 0: it took any.
    """
    if settings.port == 0:
        raise BadInputError("DMPO_PORT is 0, so the studio took any free port: name its address with --url")
    return page_url(settings.host, settings.port, settings.root_path)


def is_on_this_machine(url: str) -> bool:
    """True for an address that no proxy could reach: localhost, 127.0.0.1, ::1 and the like. Raises BadInputError."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError as error:
        raise BadInputError(f"{url} is no address ({error})") from error
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def check_health(url: str, *, seconds: float, by_proxy: bool) -> str:
    """Ask the studio at `url`, which ends in a slash, if it is alive; returns the sentence that says so.

    `seconds`: patience with each step. Raises StudioError when it is not, BadInputError for what is no address.
    """
    opener = build_opener() if by_proxy else build_opener(ProxyHandler({}))
    for path in _PATHS:
        status = _ask(opener, f"{url}{path}", seconds)
        if status == 200:
            return f"the studio at {url} is alive"
        if status != 404:
            raise StudioError(f"the studio at {url} answered {status}")
    raise StudioError(f"what answers at {url} is no studio, or not below this path (DMPO_ROOT_PATH)")


def _ask(opener: OpenerDirector, url: str, seconds: float) -> int:
    try:
        with opener.open(url, timeout=seconds) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise StudioError(f"no studio answers at {url} ({reason})") from error
    except ValueError as error:
        raise BadInputError(f"{url} is no address ({error}); expected one like http://127.0.0.1:7860") from error
