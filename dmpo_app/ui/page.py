"""The whole page: its theme, a line on top and the tabs.

The tabs that are one custom element each are made here.
"""

import gradio as gr
from gradio.themes.utils.colors import Color
from gradio.themes.utils.fonts import LocalFont

from dmpo_app.ui.assets import Assets
from dmpo_app.ui.compare_tab import compare_tab, gpu_minute_panel
from dmpo_app.ui.serving import RunningServer, serve
from dmpo_app.web.services import Services

GREEN = Color(
    name="studio_green", c50="#eefaf6", c100="#d5f2e9", c200="#aee4d5", c300="#7acfbb", c400="#46b39d", c500="#1f9682",
    c600="#0d7a69", c700="#0c6256", c800="#0d4e46", c900="#0c413b", c950="#042523",
)  # fmt: skip
PAPER = Color(
    name="studio_paper", c50="#fbfaf7", c100="#f4f2ed", c200="#e7e4dc", c300="#d3cec3", c400="#a39d91", c500="#78736a",
    c600="#5a564f", c700="#423f3a", c800="#2a2825", c900="#1c1b19", c950="#131211",
)  # fmt: skip


def studio_theme() -> gr.themes.Base:
    """The theme of the whole page; the studio's own elements read the same CSS variables."""
    theme = gr.themes.Base(
        primary_hue=GREEN,
        secondary_hue=GREEN,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_lg,
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_background_fill="#ffffff",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="600",
        block_shadow="none",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        color_accent="*primary_600",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="*neutral_950",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
    )


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
    if services.gpu_minutes is not None:
        blocks.queue(max_size=64, status_update_rate=10, default_concurrency_limit=1)
    return blocks


def launch(blocks: gr.Blocks, services: Services) -> RunningServer:
    """Serve page and API at the settings' host and port; returns as soon as requests are accepted.

    Raises SetupError when the port is taken or the address is not one of this machine.
    """
    return serve(blocks, studio_theme(), services)
