"""The page: `build_ui` makes it, `launch` serves it together with the JSON API."""

from dmpo_app.ui.page import build_ui, launch
from dmpo_app.ui.serving import RunningServer

__all__ = ["RunningServer", "build_ui", "launch"]
