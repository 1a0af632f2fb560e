"""The tab where administrators find, import and retire prompts."""

from __future__ import annotations

import gradio as gr


def prompts_tab() -> None:
    """Build the tab's content."""
    gr.HTML("<dmpo-prompts></dmpo-prompts>", apply_default_css=False, js_on_load=None, padding=False)
