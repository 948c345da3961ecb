"""A session costs little, however many there are: a call by plain HTTP is one of its own."""

from __future__ import annotations

import gc
import tracemalloc

import gradio as gr
import httpx
from gradio.state_holder import SessionState, StateHolder
from gradio_client import Client

from shared.suite import Suite
from shared.transport.gradio.mount import import_gradio

MOST = 100_000
"""Bytes; Gradio by itself keeps 0.9 MB for the whole suite."""


def test_sessions_of_the_whole_suite_are_small(suite: Suite) -> None:
    holder = StateHolder()
    holder.set_blocks(suite.blocks)
    suite.blocks.state_holder = suite.blocks.app.state_holder
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(20):
            _ = holder[f"session {number}"]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20 * MOST


def test_calls_leave_no_copy_of_the_page(suite: Suite, client: Client) -> None:
    sessions = suite.blocks.app.state_holder.session_data
    before = set(sessions) - {client.session_hash}
    address = f"{suite.url}gradio_api/call/v2/translate"
    event = httpx.post(address, json={"text": "Good morning."}).json()["event_id"]
    assert "Bom dia." in httpx.get(f"{address}/{event}", timeout=60).text
    client.predict("Good morning.", api_name="/translate")
    ours = {name: session for name, session in sessions.items() if name not in before}
    assert client.session_hash in ours
    assert len(ours) >= 2
    assert all(session.config_values == {} for session in ours.values())


def test_a_session_keeps_its_own_state_and_changed_components() -> None:
    import_gradio()
    with gr.Blocks() as blocks:
        seen, menu = gr.State([]), gr.Dropdown(["a"], value="a")
    ours, theirs = SessionState(blocks), SessionState(blocks)
    ours[seen._id] = [1]
    ours[menu._id] = gr.Dropdown(["b"], value="b", render=False)
    assert (ours[seen._id], theirs[seen._id]) == ([1], [])
    assert ours[menu._id].choices == [("b", "b")]
    assert theirs[menu._id].choices == [("a", "a")]
