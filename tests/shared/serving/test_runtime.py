"""Loading real checkpoints side by side."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from shared.serving.runtime import Runtime, start
from shared.settings import Settings


def test_answers_do_not_depend_on_the_number_of_threads(runtime: Runtime) -> None:
    """The lane gives a step as many threads as are free, so the same seed must give the same text on one and on two."""
    model = runtime.cache.hold(runtime.catalog.choose_by_id("SmolLM2-135M-Instruct"))
    encoder = runtime.cache.hold(runtime.catalog.choose_by_id("all-MiniLM-L6-v2"))
    prompt = model.engine.tokenize("Once upon a time, in a galaxy far, far away, there was " * 8)
    texts = ["The bridge is closed.", "A longer text about bridges, rivers and ferries. " * 20]
    logits, vectors = [], []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for nbytes in (0, 10**9):  # nothing is kept, or the second time would read the last token alone
            model.engine.limit_cache(nbytes)
        logits.append(model.engine.next_token_logits(prompt))
        vectors.append(encoder.engine.encode(texts))
    torch.set_num_threads(before)
    model.close()
    encoder.close()
    assert np.array_equal(*logits)
    assert np.array_equal(*vectors)


def test_loads_side_by_side_leave_the_default_dtype_alone_and_models_whole(settings: Settings) -> None:
    """transformers' loader changes process-wide state; models computing or loading meanwhile must not notice."""
    runtime = start(settings)
    seen = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.0005):
            seen.add(torch.get_default_dtype())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with ThreadPoolExecutor(4) as threads:
        embedded = [checkpoint for checkpoint in runtime.catalog if checkpoint.profile == "embedded"]
        held = list(threads.map(runtime.cache.hold, embedded))
    done.set()
    watcher.join()
    assert seen == {torch.float32}
    for borrowed in held:
        model = getattr(borrowed.engine, "model", None) or getattr(borrowed.engine, "_model", None)
        if isinstance(model, torch.nn.Module):
            assert len({parameter.dtype for parameter in model.parameters()}) == 1
        borrowed.close()
    runtime.lane.close()
    runtime.cache.close()
