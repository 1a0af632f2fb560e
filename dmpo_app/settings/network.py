"""The place of the studio in a network: its root path, the proxies it believes, the sites that may frame it.

Each is a type of a setting, normalized and checked, with the default of a Space.
"""

import os
import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from dmpo_app.errors import SetupError
from dmpo_app.settings.host import on_space

_SEGMENT = re.compile(r"[A-Za-z0-9_~.-]{1,64}")


def normalized_root_path(text: str) -> str:
    """Normalize a root path: `studio/` to `/studio`, `/` to the empty text. Raises ValueError for what is no path."""
    segments = text.strip().strip("/").split("/")
    if segments == [""]:
        return ""
    if not all(_SEGMENT.fullmatch(segment) and segment.strip(".") for segment in segments):
        raise ValueError(
            f"{text!r} is no path below which a proxy can serve the studio; expected one like /studio or "
            "/tools/studio: names of letters, digits and . _ ~ -, without scheme, host and query"
        )
    return "/" + "/".join(segments)


def gradio_root_path() -> str:
    """The path in GRADIO_ROOT_PATH, which people know from other apps of Gradio; it may be a whole address there.

    Raises SetupError for what is no path.
    """
    try:
        return normalized_root_path(urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).path)
    except ValueError as error:
        raise SetupError(f"GRADIO_ROOT_PATH: {error}. DMPO_ROOT_PATH is the studio's own setting for it") from error


RootPath = Annotated[str, AfterValidator(normalized_root_path)]


_SPACE_PROXIES = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, fc00::/7"


def default_proxies() -> str:
    """The proxies of a Space, which reaches its container from addresses of a private network; none elsewhere."""
    return _SPACE_PROXIES if on_space() else ""


def normalized_proxies(text: str) -> str:
    """Normalize addresses and networks, separated by commas. Raises ValueError for what is neither."""
    networks = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(str(ip_network(item, strict=False)))
        except ValueError as error:
            raise ValueError(
                f"{item!r} is neither an address nor a network; expected some like 127.0.0.1, 10.0.0.0/8, ::1, "
                "separated by commas (names are not looked up)"
            ) from error
    return ", ".join(networks)


TrustedProxies = Annotated[str, AfterValidator(normalized_proxies)]


_SPACE_FRAMES = "https://huggingface.co https://*.huggingface.co https://*.hf.space"
_ORIGIN = re.compile(r"https?://(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?")


def default_frame_ancestors() -> str:
    """The sites of Spaces, which show a Space in a frame; elsewhere none but the studio itself."""
    return _SPACE_FRAMES if on_space() else ""


def normalized_frame_ancestors(text: str) -> str:
    """Normalize the origins of a `frame-ancestors` directive. Raises ValueError for what is none."""
    origins = text.replace(",", " ").split()
    for origin in origins:
        if not _ORIGIN.fullmatch(origin) and origin not in ("*", "none"):
            raise ValueError(
                f"{origin!r} is no site that could show the page in a frame; expected origins like "
                "https://course.example.org or https://*.example.org, separated by spaces, or * for any site, or none"
            )
    if "none" in origins and len(origins) > 1:
        raise ValueError("none stands alone: it forbids frames on every site, this one included")
    return " ".join(origins)


FrameAncestors = Annotated[str, AfterValidator(normalized_frame_ancestors)]
