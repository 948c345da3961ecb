"""The smallest Gradio app there is: what starting costs whoever uses Gradio. Run by `python -m benchmarks`."""

from __future__ import annotations

import sys

import gradio as gr

if __name__ == "__main__":
    demo = gr.Interface(lambda text: text, "text", "text", api_name="echo")
    demo.launch(server_name="127.0.0.1", server_port=int(sys.argv[sys.argv.index("--port") + 1]), quiet=True)
