"""The tab with votes over time, the round that runs, every version and what administrators may do."""

from __future__ import annotations

import gradio as gr


def progress_tab() -> None:
    """Build the tab's content."""
    gr.HTML("<dmpo-progress></dmpo-progress>", apply_default_css=False, js_on_load=None, padding=False)
