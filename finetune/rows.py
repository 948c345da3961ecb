"""The rows of a recipe, split into training, validation and test."""

from __future__ import annotations

from finetune.data import corpora
from finetune.data.sounds import write_recordings
from finetune.data.sources import Corpus
from finetune.data.split import Parts, split
from finetune.recipe import Recipe
from shared.events import Progress
from shared.serving.runtime import Runtime


def read_parts(recipe: Recipe, runtime: Runtime, progress: Progress) -> Parts:
    progress("reading rows", 0, 0)
    source = recipe.data.source
    rows = corpora.read(source.corpus, runtime.settings, progress) if isinstance(source, Corpus) else source.rows()
    if recipe.task == "audio-classification":
        rows = write_recordings(rows, recipe.data.input, runtime.settings.cache_dir / "sounds")
    return split(rows, recipe.data, generates=recipe.generates)
