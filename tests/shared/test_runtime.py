"""Loading real checkpoints side by side."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from shared.runtime import start
from shared.settings import Settings


def test_loads_side_by_side_leave_the_default_dtype_alone_and_models_whole(settings: Settings) -> None:
    """transformers' loader changes process-wide state; models computing or loading meanwhile must not notice."""
    runtime = start(settings)
    seen = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(torch.get_default_dtype())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as threads:
        held = list(threads.map(runtime.cache.hold, runtime.catalog))
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
