"""Quality of classification: zero-shot, few-shot, sentiment, and what chose the similarity scale."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.quality import MINILM, SMOLLM, Item, Row, clock, in_points, items, on_loan, points
from benchmarks.report import say, table
from benchmarks.stats import bootstrap
from classification.requests import FewShot, Sentiment, ZeroShot
from classification.scoring import SENTIMENTS, SIMILARITY_MIDPOINT, SIMILARITY_SCALE, softmax
from classification.task import Classification, few_shot_rows, sentiment_rows, zero_shot_rows
from finetune.data import corpora
from shared.fetching.wheel import FetchFailed
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.requests import labels, validate
from shared.settings import Settings

TOPICS = "sports, business, technology, politics, health, food"
MODELS = (MINILM, SMOLLM)

NEWS_TOPICS = "business, entertainment, politics, sports, technology"
SPELT_OUT = {"tech": "technology"}
"""Where the corpus's name of a topic is another."""
ARTICLE_WORDS = 45
EVERY_ARTICLE, QUICK_EVERY_ARTICLE = 5, 200
"""445 of them, of all topics: the rows lie topic by topic."""

NO_EXAMPLES, WITH_EXAMPLES = "zero-shot and sentiment", "few-shot"

SHOTS = (0, 1, 4, 8)
QUICK_SHOTS = (0, 2)
DRAWS = 3
"""Sets of examples, since a few-shot prompt depends much on which ones it happens to show."""

SCALES = tuple(range(5, 61, 5))


def accuracy(task: str, method: str, right: Sequence[float], **more: Any) -> Row:
    return Row(task, method, "accuracy", len(right), (points(right),), (in_points(bootstrap(right)),), **more)


def majority(task: str, found: Sequence[Item]) -> Row:
    """What one gets for always saying the commonest label."""
    commonest = Counter(item["label"] for item in found).most_common(1)[0][0]
    return accuracy(task, "baseline: the commonest label", [float(item["label"] == commonest) for item in found])


def judged(
    task: str,
    found: Sequence[Item],
    answers: Sequence[Classification],
    lease: Lease,
    seconds: float,
    stated: float | None = None,
) -> Row:
    given = tuple(answer.label for answer in answers)
    right = [float(label == item["label"]) for label, item in zip(given, found, strict=True)]
    model = lease.checkpoint.id
    return accuracy(
        task, model, right, seconds=seconds, stated=stated, model=model, engine=lease.engine.name, answers=given,
        judged_with=NO_EXAMPLES,
    )  # fmt: skip


def zero_shot(context: Context, quick: bool) -> Iterator[Row]:
    task = "zero-shot topics, 6 labels"
    found = items("topics", quick)
    yield majority(task, found)
    for model, stated in zip(MODELS, (None, 94.0), strict=True):
        yield zero_shot_by(model, task, found, TOPICS, stated, context)


def news(context: Context, quick: bool) -> Iterator[Row]:
    """The beginnings of BBC articles: rows enough to know how often two engines say the same."""
    task = f"zero-shot news, {len(labels(NEWS_TOPICS))} labels"
    try:
        found = articles(context.settings)[:: QUICK_EVERY_ARTICLE if quick else EVERY_ARTICLE]
    except FetchFailed as error:
        say(f"{task}: left out, {error}")
        return
    yield majority(task, found)
    for model in MODELS:
        yield zero_shot_by(model, task, found, NEWS_TOPICS, None, context)


def articles(settings: Settings) -> list[Item]:
    """All 2,225, each cut to its headline and first sentences. Raises `FetchFailed`."""
    return [
        {
            "text": " ".join(row["text"].split()[:ARTICLE_WORDS]),
            "label": SPELT_OUT.get(str(row["label"]), str(row["label"])),
        }
        for row in corpora.read("bbc-news", settings)
    ]


def zero_shot_by(
    model: str, task: str, found: Sequence[Item], topics: str, stated: float | None, context: Context
) -> Row:
    say(f"{task}, {model}, {context.settings.engines} engine")
    fixed = {"candidate_labels": topics, "model": model}
    asked = [validate(ZeroShot, {"text": item["text"], **fixed}, context.settings) for item in found]
    with on_loan(context, context.borrow(model, "zero-shot-classification")) as lease:
        with clock() as taken:
            answers = zero_shot_rows(asked, lease)
        return judged(task, found, answers, lease, taken[0], stated)


def sentiment(context: Context, quick: bool) -> Iterator[Row]:
    task = f"sentiment, {len(SENTIMENTS)} labels"
    found = items("sentiment", quick)
    yield majority(task, found)
    for model, stated in zip(MODELS, (None, 96.0), strict=True):
        say(f"{task}, {model}, {context.settings.engines} engine")
        asked = [validate(Sentiment, {"text": item["text"], "model": model}, context.settings) for item in found]
        with on_loan(context, context.borrow(model, "text-classification")) as lease:
            with clock() as taken:
                answers = sentiment_rows(asked, lease)
            yield judged(task, found, answers, lease, taken[0], stated)


# -- few-shot ----------------------------------------------------------------------------------------


def held_out(found: Sequence[Item], seed: int, numbers: Sequence[int] = SHOTS) -> tuple[list[Item], list[Item]]:
    """Examples to teach with, one of each label first, then any; and the items that are left to be judged.

    The same items are judged for every number of examples, so that only the number differs.
    """
    shuffled = list(found)
    random.Random(seed).shuffle(shuffled)
    firsts = {item["label"]: item for item in reversed(shuffled)}
    chosen = [item for item in shuffled if firsts[item["label"]] is item][: max(numbers)]
    chosen += [item for item in shuffled if item not in chosen][: max(numbers) - len(chosen)]
    return chosen, [item for item in shuffled if item not in chosen]


def few_shot(context: Context, quick: bool) -> Iterator[Row]:
    found = items("topics", quick)
    draws = [held_out(found, seed, QUICK_SHOTS if quick else SHOTS) for seed in range(1 if quick else DRAWS)]
    for model in (SMOLLM, MINILM):
        for shots in QUICK_SHOTS if quick else SHOTS:
            say(f"few-shot topics, {model}, {shots} examples, {context.settings.engines} engine")
            raw: dict[str, list[float]] = {}
            final: dict[str, list[float]] = {}
            first_labels: list[str] = []
            final_labels: list[str] = []
            with on_loan(context, context.borrow(model, "few-shot-classification")) as lease, clock() as taken:
                for taught, judged in draws:
                    rows = [[item["text"], item["label"]] for item in taught[:shots]]
                    fixed = {"candidate_labels": TOPICS, "examples": rows, "model": model}
                    asked = [validate(FewShot, {"text": item["text"], **fixed}, context.settings) for item in judged]
                    for answer, item in zip(few_shot_rows(asked, lease), judged, strict=True):
                        first_labels.append(answer.raw[0]["label"])
                        final_labels.append(answer.label)
                        raw.setdefault(item["text"], []).append(float(first_labels[-1] == item["label"]))
                        final.setdefault(item["text"], []).append(float(final_labels[-1] == item["label"]))
                known = {"model": model, "engine": lease.engine.name}
            task, seconds = f"few-shot topics, {shots} examples", taken[0]
            last = {**known, "seconds": seconds, "answers": tuple(final_labels), "judged_with": WITH_EXAMPLES}
            if model == MINILM:
                yield accuracy(task, f"{model}, centroids", by_item(final), **last)
                continue
            answers = tuple(first_labels)
            yield accuracy(task, f"{model}, raw", by_item(raw), **known, seconds=seconds, answers=answers)
            stated = {1: 96.0, 8: 98.0}.get(shots)
            yield accuracy(task, f"{model}, calibrated", by_item(final), **last, stated=stated)


def by_item(right: dict[str, list[float]]) -> list[float]:
    """An item that several draws judged counts once, or the interval would be too narrow."""
    return [sum(values) / len(values) for values in right.values()]


# -- from similarity to probability ------------------------------------------------------------------


def scale_curve(context: Context, quick: bool) -> str:
    """Negative log-likelihood of the right topic at each softmax scale, and how cosines of labels lie."""
    found = items("topics", quick)
    names = labels(TOPICS)
    template = ZeroShot.model_fields["hypothesis_template"].default
    say("similarity scale")
    with on_loan(context, context.borrow(MINILM, "zero-shot-classification")) as lease:
        texts = [item["text"] for item in found]
        vectors = lease.sentence_encoder().encode(
            [*texts, *(template.replace("{}", name) for name in names)], lease.compute
        )
    cosines = vectors[: len(found)] @ vectors[len(found) :].T
    truth = np.array([names.index(item["label"]) for item in found])

    def loss(scale: float) -> float:
        return float(-np.log(softmax(scale * cosines)[np.arange(len(truth)), truth]).mean())

    finest = min(np.arange(5, 60.5, 0.5), key=loss)
    curve = table(["scale", *map(str, SCALES)], [["NLL, nats", *(f"{loss(scale):.3f}" for scale in SCALES)]])
    return "\n\n".join(
        [
            f"**Similarity scale** (softmax of scale × cosine, {MINILM}, {len(found)} topics): best at "
            f"{finest:g} with NLL {loss(finest):.3f}; SIMILARITY_SCALE is {SIMILARITY_SCALE:g} with "
            f"{loss(SIMILARITY_SCALE):.3f}; guessing evenly would have {np.log(len(names)):.3f}.",
            curve,
            midpoint(cosines, truth),
        ]
    )


def midpoint(cosines: np.ndarray, truth: np.ndarray) -> str:
    """How well one threshold tells right labels from wrong ones where each is judged by itself."""
    is_right = np.arange(cosines.shape[1]) == truth[:, None]
    right, wrong = cosines[is_right], cosines[~is_right]

    def balanced(threshold: float) -> float:
        return float(((right >= threshold).mean() + (wrong < threshold).mean()) / 2)

    best = max(np.arange(-0.1, 0.5, 0.005), key=balanced)
    chosen = SIMILARITY_MIDPOINT
    return (
        f"**Multi-label midpoint**: right labels have a mean cosine of {right.mean():.3f}, wrong ones of "
        f"{wrong.mean():.3f}. At SIMILARITY_MIDPOINT {chosen:g}, {100 * (right >= chosen).mean():.0f} % of the right "
        f"labels count as more than one half and {100 * (wrong >= chosen).mean():.0f} % of the wrong ones (balanced "
        f"accuracy {balanced(chosen):.3f}; the best threshold here is {best:.3f} with {balanced(best):.3f})."
    )
