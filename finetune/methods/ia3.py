"""IA³ (Liu et al. 2022): keys, values and the inner layer are rescaled by learned vectors. The smallest adapter."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from finetune.methods.lora import new_heads, peft_task
from shared.errors import InvalidInput

TARGETS: dict[str, tuple[list[str], list[str]]] = {
    "bert": (["key", "value", "output.dense"], ["output.dense"]),
    "roberta": (["key", "value", "output.dense"], ["output.dense"]),
    "distilbert": (["k_lin", "v_lin", "lin2"], ["lin2"]),
    "llama": (["k_proj", "v_proj", "down_proj"], ["down_proj"]),
    "gpt2": (["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
    "t5": (["k", "v", "wo"], ["wo"]),
    "marian": (["k_proj", "v_proj", "fc2"], ["fc2"]),
    "wav2vec2": (["k_proj", "v_proj", "output_dense"], ["output_dense"]),
}
"""By architecture: what is rescaled, and which of it at its input, as feed-forward layers are."""


class IA3(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["ia3"] = "ia3"
    saves: ClassVar[Literal["adapter"]] = "adapter"

    def quantization(self, dtype: Any) -> None:
        return None

    def adapt(self, model: Any, task: str) -> Any:
        import peft

        if model.config.model_type not in TARGETS:
            known = ", ".join(TARGETS)
            raise InvalidInput(
                f"it is not known where IA³ goes in {model.config.model_type!r}; known are {known}", field="method.name"
            )
        modules, feedforward = TARGETS[model.config.model_type]
        config = peft.IA3Config(
            target_modules=modules,
            feedforward_modules=feedforward,
            task_type=peft_task(task),
            modules_to_save=new_heads(model, task),
        )
        return peft.get_peft_model(model, config)
