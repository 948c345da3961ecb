"""BitFit (Ben Zaken et al. 2022): trains the biases and a new head only.

A Llama has no biases at all. There the scales of the norms are trained instead, the nearest equivalent, and the results
say so by their number of trainable parameters.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from finetune.methods.partial import is_head


class BitFit(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["bitfit"] = "bitfit"
    saves: ClassVar[Literal["checkpoint"]] = "checkpoint"

    def quantization(self, dtype: Any) -> None:
        return None

    def adapt(self, model: Any, task: str) -> Any:
        model.requires_grad_(False)
        body = [(name, weight) for name, weight in model.named_parameters() if not is_head(name)]
        has_biases = any(name.endswith(".bias") for name, _ in body)
        for name, weight in model.named_parameters():
            small = name.endswith(".bias") if has_biases else weight.ndim == 1
            if small or is_head(name):
                weight.requires_grad_(True)
        return model
