"""The tab where people vote. The widget is an element of its own that talks to the JSON API, past Gradio's queue."""

from __future__ import annotations

import gradio as gr


def label_tab(num_images: int) -> None:
    """Build the tab's content, with room for so many images, so that nothing moves when the first ones come."""
    widget = f'<dmpo-label data-images="{num_images}"></dmpo-label>'
    gr.HTML(widget, apply_default_css=False, js_on_load=None, padding=False)
