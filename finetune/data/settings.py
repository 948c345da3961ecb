"""The data part of a recipe: where rows come from, which columns are read, and how they are split."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from finetune.data.sources import Source


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(Strict):
    """How rows are divided. Near-duplicates and rows of one group never part (`finetune.data.split`)."""

    validation: float = Field(default=0.1, ge=0, lt=0.5, description="Share that chooses the best checkpoint.")
    test: float = Field(default=0.2, gt=0, lt=0.9, description="Share that is held out and measured on at the end.")
    seed: int = Field(default=0, ge=0)


class Data(Strict):
    """Where rows come from, and which columns are read; `translation.en` is the key `en` within a column."""

    source: Source
    input: str = Field("text", description="Column of the text (of audio: the file) that goes in.")
    target: str = Field("label", description="Column of the label, reply, summary or translation that should come out.")
    group: str = Field(default="", description="Column whose equal values must not be split; empty for none.")
    limit: int = Field(default=20_000, ge=10, description="Most rows kept, drawn evenly from all: bounds memory.")
    split: Split = Split()
