"""The page: tabs, forms and panels, drawn with Gradio."""
