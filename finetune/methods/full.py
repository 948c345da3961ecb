"""Full fine-tuning: trains every weight. It needs the most memory, and is the baseline for all other methods."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict


class Full(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["full"] = "full"
    saves: ClassVar[Literal["checkpoint"]] = "checkpoint"

    def quantization(self, dtype: Any) -> None:
        return None

    def adapt(self, model: Any, task: str) -> Any:
        return model.requires_grad_(True)
