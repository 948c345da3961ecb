"""LoRA (Hu et al. 2021): each target matrix W gets a trained update B·A of low rank; W itself is frozen.

The adapter is what is saved: a few megabytes, which the suite lays over the base that it has in memory anyway.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.methods.partial import HEADS

PEFT_TASKS = {
    "text-classification": "SEQ_CLS",
    "audio-classification": "SEQ_CLS",
    "conversational": "CAUSAL_LM",
    "summarization": "SEQ_2_SEQ_LM",
    "translation": "SEQ_2_SEQ_LM",
}

TARGETS = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn"],
    "t5": ["q", "v"],
    "marian": ["q_proj", "v_proj"],
    "m2m_100": ["q_proj", "v_proj"],
    "wav2vec2": ["q_proj", "v_proj"],
}
"""Where LoRA is put when the recipe does not say, by architecture."""


class LoRA(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=1024)
    alpha: int = Field(default=16, ge=1, description="The update is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(
        default=(), description="Names of linear modules; empty takes the usual ones."
    )
    saves: ClassVar[Literal["adapter"]] = "adapter"

    def quantization(self, dtype: Any) -> Any:
        return None

    def adapt(self, model: Any, task: str) -> Any:
        import peft

        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(self.target_modules or targets(model)),
            task_type=peft_task(task),
            modules_to_save=new_heads(model, task),
        )
        return peft.get_peft_model(model, config)


def targets(model: Any) -> list[str]:
    return TARGETS.get(model.config.model_type, ["all-linear"])


def peft_task(task: str) -> Any:
    import peft

    # peft has no kind for audio, and a text classifier's would pass it token ids.
    return None if task == "audio-classification" else peft.TaskType[PEFT_TASKS[task]]


def new_heads(model: Any, task: str) -> list[str] | None:
    """Modules that the base did not bring trained, and which are therefore trained whole and saved with the adapter."""
    heads = {name.rpartition(".")[2] for name, _ in model.named_modules()} & set(HEADS)
    return sorted(heads) if task.endswith("-classification") and heads else None
