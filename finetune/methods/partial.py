"""Partial fine-tuning: the head alone (a linear probe of frozen features), or the top layers with it."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

HEADS = ("classifier", "score", "pooler", "pre_classifier", "projector")
"""Modules that transformers puts on top of a body for a task."""

LAYER = re.compile(r"(?:^|\.)(?:layers?|h|block)\.(\d+)\.")
"""The number of the layer in a parameter's name, in BERT, Llama, GPT-2, T5, Marian and wav2vec2."""


class Partial(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["partial"] = "partial"
    top_layers: int = Field(default=0, ge=0, description="Number of last layers to train too; 0 trains the head alone.")
    saves: ClassVar[Literal["checkpoint"]] = "checkpoint"

    def quantization(self, dtype: Any) -> None:
        return None

    def adapt(self, model: Any, task: str) -> Any:
        model.requires_grad_(False)
        names = [name for name, _ in model.named_parameters()]
        first = 1 + max((int(found[1]) for name in names if (found := LAYER.search(name))), default=-1)
        first -= self.top_layers
        for name, parameter in model.named_parameters():
            layer = LAYER.search(name)
            above = layer is not None and self.top_layers and int(layer[1]) >= first
            if above or is_head(name):
                parameter.requires_grad_(True)
        return model


def is_head(name: str) -> bool:
    """Whether a parameter of this name belongs to what a task puts on top of the body."""
    return any(part in HEADS for part in name.split("."))
