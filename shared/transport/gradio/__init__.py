"""The endpoints as Gradio's API, and what Gradio lacks or keeps too much of."""
