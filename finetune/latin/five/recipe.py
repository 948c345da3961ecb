"""What decides the head, as one checked YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import InvalidInput

RECIPE = Path(__file__).with_name("recipe.yaml")
Layer = Literal["penultimate", "pooled"]


class HeadRecipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    base: Literal["musicnn"]
    layer: Layer
    clips: int = Field(ge=20, description="Of each seed, about.")
    seeds: tuple[int, ...] = Field(min_length=1)
    components: tuple[int, ...] = Field(min_length=1, description="Principal components, tried on validation.")
    strengths: tuple[float, ...] = Field(min_length=1, description="C of the logistic regression, tried on validation.")
    false_positives: float = Field(gt=0, lt=1)
    licence: str


def read_recipe(path: Path = RECIPE) -> HeadRecipe:
    """Raises `InvalidInput`, which names the key at fault."""
    try:
        return HeadRecipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        raise InvalidInput(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}", field="recipe") from None
