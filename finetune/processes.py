"""Several processes that train one run together, as `accelerate launch` and `torchrun` start them.

The functions have accelerate's names. The main process writes status, log, result and evaluation; the others only
compute. A process that was started alone is the main one.
"""

from __future__ import annotations

import os


def num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def wait_for_everyone() -> None:
    """Blocks until every process has called this."""
    if num_processes() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in at least one process. Every process must call this."""
    if num_processes() < 2:
        return flag
    import torch

    reduced = torch.tensor(int(flag), device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.all_reduce(reduced, torch.distributed.ReduceOp.MAX)
    return bool(reduced)


def destroy() -> None:
    """Waits for all processes and destroys the process group; after it each one runs by itself."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        wait_for_everyone()
        torch.distributed.destroy_process_group()
