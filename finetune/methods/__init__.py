"""The methods: one readable file each, and what they share: a protocol, no base class.

A method's settings are the recipe's `method:`; `name` is the discriminator. Its `adapt` takes the base model and
returns the one to train, in which exactly the trainable weights require gradients. Adding a method is adding its file
and its class to the union below.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

from finetune.methods.bitfit import BitFit
from finetune.methods.distillation import Distillation
from finetune.methods.full import Full
from finetune.methods.ia3 import IA3
from finetune.methods.lora import LoRA
from finetune.methods.partial import Partial
from finetune.methods.qlora import QLoRA

Method = Full | Partial | BitFit | IA3 | LoRA | QLoRA | Distillation


def saves_adapter(name: str) -> bool:
    """Whether the method of this name saves an adapter, and not a whole checkpoint."""
    return any(m.model_fields["name"].default == name and m.saves == "adapter" for m in get_args(Method))


class TrainingMethod(Protocol):
    """What every method is."""

    name: Any
    saves: Literal["adapter", "checkpoint"]
    """A few megabytes to lay over the base, or a whole checkpoint."""

    def quantization(self, dtype: Any) -> Any:
        """The `BitsAndBytesConfig` to read the base with, or None."""
        ...

    def adapt(self, model: Any, task: str) -> Any:
        """The model to train: every weight of `model` is frozen except the trainable ones."""
        ...


__all__ = [
    "IA3",
    "BitFit",
    "Distillation",
    "Full",
    "LoRA",
    "Method",
    "Partial",
    "QLoRA",
    "TrainingMethod",
    "saves_adapter",
]
