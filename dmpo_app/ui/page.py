"""The whole page: a line on top, and the tabs; those that are one custom element each are made here."""

from __future__ import annotations

import gradio as gr

from dmpo_app.ui.assets import Assets
from dmpo_app.ui.compare_tab import compare_tab
from dmpo_app.ui.zerogpu_events import gpu_minute_panel
from dmpo_app.web.services import Services


def label_tab(num_images: int) -> None:
    """Build the Label tab, with room for `num_images` images, so that nothing moves when the first ones come."""
    widget = f'<dmpo-label data-images="{num_images}"></dmpo-label>'
    gr.HTML(widget, apply_default_css=False, js_on_load=None, padding=False)


def contact_sheet_tab() -> None:
    """Build the Contact sheet tab: the same prompts and seeds under every version."""
    gr.HTML("<dmpo-sheet></dmpo-sheet>", apply_default_css=False, js_on_load=None, padding=False)


def progress_tab(services: Services) -> None:
    """Build the Progress tab: votes, rounds and versions; on ZeroGPU, above them, the button that lends a minute."""
    if services.gpu_minutes is not None:
        gpu_minute_panel(services.gpu_minutes)
    gr.HTML("<dmpo-progress></dmpo-progress>", apply_default_css=False, js_on_load=None, padding=False)


def prompts_tab() -> None:
    """Build the Prompts tab, for administrators."""
    gr.HTML("<dmpo-prompts></dmpo-prompts>", apply_default_css=False, js_on_load=None, padding=False)


def quality_tab() -> None:
    """Build the Quality tab, for administrators."""
    gr.HTML("<dmpo-quality></dmpo-quality>", apply_default_css=False, js_on_load=None, padding=False)


TITLE = "DMPO Studio"
_HEADER = """<div class="st-top">
  <img class="st-logo" src="./studio/static/{build}/logo.svg" alt="" width="34" height="34">
  <div class="st-words">
    <h1 class="st-name">DMPO Studio</h1>
    <p class="st-line">Say which image you prefer. The model learns it while you watch.</p>
  </div>
  <dmpo-header></dmpo-header>
</div>"""


def build_ui(services: Services) -> gr.Blocks:
    """Build the Gradio blocks of the page; nothing listens yet."""
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False)
    with blocks:
        header = _HEADER.format(build=Assets.load().build)
        gr.HTML(header, apply_default_css=False, js_on_load=None, padding=False)
        with gr.Tabs():
            with gr.Tab("Label"):
                label_tab(services.settings.labeling.num_images)
            with gr.Tab("Before / after"):
                compare_tab(services)
            with gr.Tab("Contact sheet"):
                contact_sheet_tab()
            with gr.Tab("Progress"):
                progress_tab(services)
            with gr.Tab("Prompts"):
                prompts_tab()
            with gr.Tab("Quality"):
                quality_tab()
    blocks.queue(max_size=64, status_update_rate=10, default_concurrency_limit=1)
    return blocks
