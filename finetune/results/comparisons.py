"""What a tuned model is held against: its own base without and with examples, and a classic method without any.

The base answers through the Spaces' own code, so the table compares with what a visitor of the suite would get.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.base import Base
from finetune.data.split import Item, Parts
from finetune.recipe import Recipe
from finetune.tasks import task_of
from shared.engines.compute import Compute, run_here
from shared.engines.protocols import NoCache, SentenceEncoder
from shared.events import result_of
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.runtime import Runtime

Answer = Callable[[Sequence[Item]], list[str]]


@dataclass
class System:
    """Something that answers. `kind` is `baseline`, `base` or `tuned`."""

    name: str
    kind: str
    answer: Answer
    loss: Callable[[Sequence[Item]], list[float]] | None = None
    """Of language models: mean loss of each row's right reply."""


def systems(recipe: Recipe, base: Base, parts: Parts, runtime: Runtime) -> Iterator[System]:
    """One after another, so that only one needs memory at a time."""
    if recipe.task == "text-classification":
        yield System("the commonest label", "baseline", commonest(parts))
        yield System("TF-IDF and logistic regression", "baseline", logistic_regression(parts))
        yield from classifying_base(recipe, base, parts, runtime)
    elif recipe.task == "conversational":
        yield System("the reply to the nearest prompt (TF-IDF)", "baseline", nearest(parts))
        yield from replying_base(recipe, base, parts)
    elif recipe.generates:
        yield System("the text itself", "baseline", lambda items: [item.input for item in items])
        yield from rewriting_base(recipe, base, parts)
    else:
        yield System("the commonest label", "baseline", commonest(parts))


# -- classic ---------------------------------------------------------------------------------------


def commonest(parts: Parts) -> Answer:
    label = Counter(item.target for item in parts.train).most_common(1)[0][0]
    return lambda items: [label] * len(items)


def logistic_regression(parts: Parts) -> Answer:
    """Words and pairs of words, weighted; trained on the same rows."""

    def answer(items: Sequence[Item]) -> list[str]:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(
            TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=50_000),
            LogisticRegression(max_iter=1000, C=10),
        )
        model.fit([item.input for item in parts.train], [item.target for item in parts.train])
        return [str(label) for label in model.predict([item.input for item in items])]

    return answer


def nearest(parts: Parts) -> Answer:
    def answer(items: Sequence[Item]) -> list[str]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(sublinear_tf=True)
        known = words.fit_transform([item.input for item in parts.train])
        found = (words.transform([item.input for item in items]) @ known.T).argmax(axis=1)
        return [parts.train[int(i)].target for i in found.A1]

    return answer


# -- the base, through the Spaces ------------------------------------------------------------------


def examples(parts: Parts, shots: int, seed: int, *, each_label: bool) -> list[Item]:
    """`shots` training rows, of each label where there are labels; the same for every system."""
    chance = random.Random(seed)
    if not each_label:
        return chance.sample(parts.train, min(shots, len(parts.train)))
    of_label = {label: [item for item in parts.train if item.target == label] for label in parts.labels}
    chosen = [item for items in of_label.values() for item in chance.sample(items, min(shots, len(items)))]
    chance.shuffle(chosen)
    return chosen


def classifying_base(recipe: Recipe, base: Base, parts: Parts, runtime: Runtime) -> Iterator[System]:
    from classification.requests import DESCRIPTION, FewShot, ZeroShot
    from classification.scoring import Scorer, SimilarityScorer
    from classification.task import Classification, scorer_of

    context, model, names = Context(runtime, "finetune", admin=True), base.checkpoint.id, ", ".join(parts.labels)
    known: dict[str, np.ndarray] = {}
    if base.checkpoint.kind == "sentence-encoder":
        # It reads long texts in windows and follows no instruction.
        most, instruction = runtime.settings.max_chars, FewShot.model_fields["instruction"].default

        def scorer(lease: Lease) -> Scorer:
            return SimilarityScorer(lease, CachedEncoder(lease.sentence_encoder(), known))
    else:
        # It reads about the words that the tuned model sees too: a token is four characters or so.
        most = min(runtime.settings.max_chars, 4 * recipe.training.max_length)
        instruction, scorer = recipe.instruction, scorer_of

    def zero(items: Sequence[Item]) -> list[str]:
        asked = [
            ZeroShot(
                text=item.input[:most],
                candidate_labels=names,
                hypothesis_template=DESCRIPTION,
                multi_label=False,
                model=model,
            )
            for item in items
        ]
        with result_of(context.borrow(model, "zero-shot-classification")) as lease:
            return [Classification(score).label for score in scorer(lease).zero_shot(asked)]

    def few(shots: int) -> Answer:
        def answer(items: Sequence[Item]) -> list[str]:
            chosen = examples(parts, shots, recipe.data.split.seed, each_label=True)
            shown: Any = [{"text": item.input[:most], "label": item.target} for item in chosen]
            asked = [
                FewShot(
                    text=item.input[:most],
                    candidate_labels=names,
                    examples=shown,
                    instruction=instruction,
                    model=model,
                )
                for item in items
            ]
            with result_of(context.borrow(model, "few-shot-classification")) as lease:
                return [Classification(score).label for score in scorer(lease).few_shot(asked)]

        return answer

    yield System("base, zero-shot", "base", zero)
    for shots in recipe.evaluation.shots:
        yield System(f"base, {shots} examples of each label", "base", few(shots))


class CachedEncoder(NoCache):
    """A `SentenceEncoder` that reads each text once, however many systems ask about it."""

    def __init__(self, encoder: SentenceEncoder, known: dict[str, np.ndarray]) -> None:
        self.name, self.nbytes, self.max_tokens = encoder.name, encoder.nbytes, encoder.max_tokens
        self.count_tokens = encoder.count_tokens
        self._encoder, self._known = encoder, known

    def encode(self, texts: Sequence[str], compute: Compute = run_here, *, keep: bool = False) -> np.ndarray:
        """Shape (texts, dimensions). The vectors of all texts are cached, with `keep` and without."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= zip(new, self._encoder.encode(new, compute), strict=True)
        return np.stack([self._known[text] for text in texts])


# -- language models -------------------------------------------------------------------------------


def replying_base(recipe: Recipe, base: Base, parts: Parts) -> Iterator[System]:
    """The base through its chat template; examples are earlier turns of the conversation."""
    from finetune.tasks import conversation

    task = task_of(recipe)
    processor = task.load_processor(base.folder, recipe)
    model = task.load(base.folder, recipe, (), None).eval()

    def system(shots: int) -> System:
        turns = [
            turn
            for item in examples(parts, shots, recipe.data.split.seed, each_label=False)
            for turn in (
                *conversation.messages(item.input, recipe.instruction),
                {"role": "assistant", "content": item.target},
            )
        ]

        def prompts(items: Sequence[Item]) -> list[list[int]]:
            asked = [[*turns, *conversation.messages(item.input, recipe.instruction)] for item in items]
            return [conversation.prompt_ids(one, processor) for one in asked]

        return System(
            _name(shots),
            "base",
            lambda items: conversation.completions(model, processor, prompts(items), recipe, lambda *_: None),
            lambda items: conversation.reply_losses(model, processor, items, prompts(items)),
        )

    yield system(0)
    for shots in recipe.evaluation.shots:
        yield system(shots)


def rewriting_base(recipe: Recipe, base: Base, parts: Parts) -> Iterator[System]:
    """The base with its prompt; examples only where the prompt has a place for the text, so that blocks can be made."""
    from finetune.tasks.sequence_to_sequence import with_instruction

    task = task_of(recipe)
    processor = task.load_processor(base.folder, recipe)
    model = task.load(base.folder, recipe, (), None).eval()
    length = recipe.training.max_length

    def system(shots: int) -> System:
        shown = examples(parts, shots, recipe.data.split.seed, each_label=False)
        blocks = [f"{with_instruction(one.input, recipe.instruction)} {one.target}\n\n" for one in shown]
        # T5 reads positions relative to each other, so a prompt may be longer than those it was trained on.
        longer = recipe.training.model_copy(update={"max_length": (shots + 1) * length})
        plain = recipe.model_copy(update={"instruction": "", "training": longer})

        def answer(items: Sequence[Item]) -> list[str]:
            prompts = [
                Item("".join([*blocks, with_instruction(item.input, recipe.instruction)]), item.target)
                for item in items
            ]
            return task.answers(model, processor, prompts, plain, (), lambda *_: None)

        return System(_name(shots), "base", answer)

    yield system(0)
    if "{text}" in recipe.instruction:
        yield from map(system, recipe.evaluation.shots)


def _name(shots: int) -> str:
    return f"base, {shots} example{'s' * (shots > 1)}" if shots else "base, zero-shot"
