"""QLoRA (Dettmers et al. 2023): LoRA over a base that is held in four bits (NF4, with quantized constants).

A quarter of the memory for the frozen weights. bitsandbytes computes it on a CPU too where the inputs of every linear
module are a multiple of 64.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.methods.lora import LoRA
from finetune.methods.partial import HEADS
from shared.errors import InvalidInput

BLOCK = 64
"""Weights that share one scale in NF4, and what a row of inputs must be a multiple of on a CPU."""


class QLoRA(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["qlora"] = "qlora"
    rank: int = Field(default=8, ge=1, le=1024)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ()
    double_quantization: bool = True
    saves: ClassVar[Literal["adapter"]] = "adapter"

    def quantization(self, dtype: Any) -> Any:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_compute_dtype=dtype,
            # Patterns: what is trained or saved whole cannot be in four bits.
            llm_int8_skip_modules=[rf"(.*\.)?{name}" for name in (*HEADS, "lm_head")],
        )

    def adapt(self, model: Any, task: str) -> Any:
        import peft

        odd = sorted(
            {m.in_features for m in model.modules() if type(m).__name__ == "Linear4bit" and m.in_features % BLOCK}
        )
        if odd and next(model.parameters()).device.type == "cpu":
            raise InvalidInput(
                f"this base has linear modules of {odd[0]} inputs, and NF4 on a CPU needs a multiple of {BLOCK}; "
                "use the method lora, or another base",
                field="method.name",
            )
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        lora = LoRA(
            rank=self.rank, alpha=self.alpha, dropout=self.dropout, target_modules=self.target_modules, name="lora"
        )
        return lora.adapt(model, task)
