"""How to call an endpoint with given inputs from Python, JavaScript and a shell, ready to run as printed."""

from __future__ import annotations

import json
from html import escape
from typing import Any


def python(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """For `gradio_client`."""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in inputs.items())
    return (
        "from gradio_client import Client\n\n"
        f"client = Client({base + '/'!r})\n"
        f'result = client.predict(\n{arguments}    api_name="/{endpoint}",\n)\nprint(result)\n'
    )


def javascript(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """For a browser's console or Node 18 and newer; needs no package."""
    return (
        f"const base = {json.dumps(base)};\n"
        f"const asked = await fetch(`${{base}}/gradio_api/call/v2/{endpoint}`, {{\n"
        '  method: "POST",\n'
        '  headers: { "Content-Type": "application/json" },\n'
        f"  body: JSON.stringify({json.dumps(inputs, ensure_ascii=False, indent=2)}),\n"
        "});\n"
        "const { event_id } = await asked.json();\n"
        f"const stream = await fetch(`${{base}}/gradio_api/call/{endpoint}/${{event_id}}`);\n"
        'const lines = (await stream.text()).split("\\n").filter((line) => line.startsWith("data: "));\n'
        "console.log(JSON.stringify(JSON.parse(lines.at(-1).slice(6)), null, 2));\n"
    )


def curl(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """For a POSIX shell: the first call queues the request, the second reads its events."""
    body = json.dumps(inputs, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"EVENT=$(curl -s {base}/gradio_api/call/v2/{endpoint} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f'  -d \'{body}\' | sed \'s/.*"event_id": *"\\([^"]*\\)".*/\\1/\')\n'
        f'curl -sN {base}/gradio_api/call/{endpoint}/"$EVENT"\n'
    )


def all_html(base: str, endpoint: str, inputs: dict[str, Any]) -> str:
    """The three of them, each with a Copy button."""
    sections = (
        ("Python", python(base, endpoint, inputs)),
        ("JavaScript", javascript(base, endpoint, inputs)),
        ("curl", curl(base, endpoint, inputs)),
    )
    return (
        '<div class="snippet">'
        + "".join(
            f'<section><h4>{title} <button data-act="copy-pre">Copy</button></h4><pre>{escape(code)}</pre></section>'
            for title, code in sections
        )
        + "</div>"
    )
