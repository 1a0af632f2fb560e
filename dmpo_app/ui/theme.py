"""Theme: warm paper, dark ink, one deep green. Fonts come with Gradio and the system, never from a network."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils.colors import Color
from gradio.themes.utils.fonts import LocalFont

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
