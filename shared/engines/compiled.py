"""A forward pass without Python: faster for a small model, and others may have the interpreter meanwhile."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)


def compiled(network: nn.Module) -> Any:
    """The same forward pass without Python; the network itself where TorchScript is not to be had."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated; nothing else runs a pass without Python
            return torch.jit.script(network)
    except (RuntimeError, AttributeError) as error:
        # The results are the same, only later: as nobody would see that, the log says so.
        log.warning("%s runs without TorchScript: %s", type(network).__name__, error)
        return network
