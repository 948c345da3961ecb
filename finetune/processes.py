"""Several processes that train one run together, as `accelerate launch` and `torchrun` start them.

The first writes: status, log, result, evaluation. The others compute. Alone, a process is the first and all there are.
"""

from __future__ import annotations

import os


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def meet() -> None:
    """Waits until every process is here."""
    if count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def any_says(yes: bool) -> bool:
    """Whether at least one process says so; all of them must ask."""
    if count() < 2:
        return yes
    import torch

    said = torch.tensor(int(yes), device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
    return bool(said)


def leave() -> None:
    """Ends the connection of the processes; after it each goes its own way."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        meet()
        torch.distributed.destroy_process_group()
