"""The tab with votes over time, the round that runs, every version and what administrators may do."""

from __future__ import annotations

import gradio as gr

from dmpo_app.ui.zerogpu_events import lend_panel
from dmpo_app.web.services import Services


def progress_tab(services: Services) -> None:
    """Build the tab's content."""
    if services.lending is not None:
        lend_panel(services.lending)
    gr.HTML("<dmpo-progress></dmpo-progress>", apply_default_css=False, js_on_load=None, padding=False)
