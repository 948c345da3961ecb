"""How requests come in: HTTP routes, server-sent events, and Gradio in a folder of its own."""
