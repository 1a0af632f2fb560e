"""The tab where people vote. The widget is an element of its own that talks to the JSON API, past Gradio's queue."""

from __future__ import annotations

import gradio as gr


def label_tab() -> None:
    """Build the tab's content."""
    gr.HTML("<dmpo-label></dmpo-label>", apply_default_css=False, js_on_load=None, padding=False)
