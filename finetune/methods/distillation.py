"""Distillation (Hinton et al. 2015): a student learns from a teacher's probabilities beside the right answers.

The teacher is larger or fine-tuned; the student is the recipe's base, here with some of its layers left out. The loss
is `(1 - weight) · cross-entropy + weight · T² · KL(teacher ‖ student)` at temperature T.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import InvalidInput


class Distillation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["distillation"] = "distillation"
    teacher: str = Field(min_length=1, description="Folder of a fine-tuned checkpoint or adapter, or a recipe's name.")
    layers: int = Field(
        default=0, ge=0, description="Layers the student keeps of its base, evenly chosen; 0 keeps all."
    )
    temperature: float = Field(default=2.0, gt=0, le=100)
    weight: float = Field(default=0.5, ge=0, le=1)
    saves: ClassVar[Literal["checkpoint"]] = "checkpoint"

    def quantization(self, dtype: Any) -> None:
        return None

    def adapt(self, model: Any, task: str) -> Any:
        if self.layers:
            keep_layers(model, self.layers)
        return model.requires_grad_(True)

    def loss(self, teacher: Any, student_logits: Any, inputs: dict[str, Any], cross_entropy: Any) -> Any:
        """`student_logits` (rows, labels), or (rows, positions, vocabulary) of which only labelled positions count."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            teacher_logits = teacher(**{k: v for k, v in inputs.items() if k != "labels"}).logits
        if student_logits.shape != teacher_logits.shape:
            raise InvalidInput(
                f"the teacher answers in the shape {tuple(teacher_logits.shape)}, the student in "
                f"{tuple(student_logits.shape)}; they need the same labels and vocabulary",
                field="method.teacher",
            )
        if student_logits.ndim == 3:
            counted = inputs["labels"][:, 1:] != -100
            student_logits, teacher_logits = student_logits[:, :-1][counted], teacher_logits[:, :-1][counted]
        divergence = functional.kl_div(
            functional.log_softmax(student_logits / self.temperature, -1),
            functional.log_softmax(teacher_logits / self.temperature, -1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature**2 * divergence


def keep_layers(model: Any, count: int) -> None:
    """Leaves `count` of the model's layers, the first and the last among them (Sanh et al. 2019 took every other)."""
    import torch

    lists = [(m, n, c) for m in model.modules() for n, c in m.named_children() if isinstance(c, torch.nn.ModuleList)]
    stacks = [(module, name, child) for module, name, child in lists if name in ("layer", "layers", "h")]
    if not stacks or count > len(stacks[0][2]):
        there = len(stacks[0][2]) if stacks else 0
        raise InvalidInput(f"the base has {there} layers, not {count}", field="method.layers")
    for module, name, child in stacks:
        chosen = [round(i * (len(child) - 1) / max(count - 1, 1)) for i in range(count)]
        setattr(module, name, torch.nn.ModuleList(child[i] for i in chosen))
    for position, layer in enumerate(getattr(stacks[0][0], stacks[0][1])):
        if hasattr(layer, "self_attn") and hasattr(layer.self_attn, "layer_idx"):
            layer.self_attn.layer_idx = position
    model.config.num_hidden_layers = count
