"""The page: `build_ui` makes it, `launch` serves it together with the JSON API."""

from dmpo_app.ui.page import RunningServer, build_ui, launch

__all__ = ["RunningServer", "build_ui", "launch"]
