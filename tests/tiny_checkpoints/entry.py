"""A catalog entry for a checkpoint that is in no catalog."""

from __future__ import annotations

from typing import Any

from shared.checkpoints.catalog import Checkpoint, HubSource


def entry(**changes: Any) -> Checkpoint:
    """An entry whose fields matter to no one but for `changes`."""
    fields: dict[str, Any] = {
        "id": "tiny",
        "kind": "causal-lm",
        "engine": "decoders.reference",
        "profile": "hub",
        "tasks": ("text-generation",),
        "languages": ("en",),
        "licence": "Apache-2.0",
        "authors": "chance",
        "parameters": 200_000,
        "context_window": 512,
        "revision": "1",
        "limits": "Its weights are random.",
        "source": HubSource(repo="user/tiny"),
    }
    return Checkpoint.model_validate({**fields, **changes})
