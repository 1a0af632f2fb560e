"""The tab with one row a version: the same prompts and seeds, rendered when the version was published."""

from __future__ import annotations

import gradio as gr


def contact_sheet_tab() -> None:
    """Build the tab's content."""
    gr.HTML("<dmpo-sheet></dmpo-sheet>", apply_default_css=False, js_on_load=None, padding=False)
