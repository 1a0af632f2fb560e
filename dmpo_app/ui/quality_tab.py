"""The tab on which administrators see how good the votes are."""

from __future__ import annotations

import gradio as gr


def quality_tab() -> None:
    """Build the tab's content."""
    gr.HTML("<dmpo-quality></dmpo-quality>", apply_default_css=False, js_on_load=None, padding=False)
