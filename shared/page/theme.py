"""How the suite looks: system fonts, neutral surfaces, one accent, light and dark."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).with_name("assets")

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Gradio's theme. Fonts are the system's own: no request leaves the page for another host."""
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.slate,
        neutral_hue=gr.themes.colors.slate,
        font=list(SANS),
        font_mono=list(MONO),
        radius_size=gr.themes.sizes.radius_md,
    )
    # teal-700 on white and teal-300 on slate-900 both pass WCAG AA for text.
    return base.set(
        body_background_fill="#f8fafc",
        body_background_fill_dark="#0b1220",
        block_background_fill="#ffffff",
        block_background_fill_dark="#111a2b",
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="#ffffff",
        input_background_fill_dark="#0e1626",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="#ffffff",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
        checkbox_background_color_selected="*primary_700",
        checkbox_background_color_selected_dark="*primary_600",
    )


def css() -> str:
    return (ASSETS / "suite.css").read_text(encoding="utf-8")


def head() -> str:
    """The page's own script, inline, since nothing may be fetched from elsewhere."""
    return f"<script>{(ASSETS / 'suite.js').read_text(encoding='utf-8')}</script>"
