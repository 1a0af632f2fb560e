"""The whole page: a line on top, and the tabs."""

from __future__ import annotations

import gradio as gr

from dmpo_app.ui.assets import Assets
from dmpo_app.ui.compare_tab import compare_tab
from dmpo_app.ui.contact_sheet_tab import contact_sheet_tab
from dmpo_app.ui.label_tab import label_tab
from dmpo_app.ui.progress_tab import progress_tab
from dmpo_app.ui.prompts_tab import prompts_tab
from dmpo_app.ui.quality_tab import quality_tab
from dmpo_app.web.services import Services

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
    """The page's blocks; nothing listens yet."""
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
