"""Labels for texts: by similarity and by likelihood, with examples and without, on the real weights."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pytest

from classification import SPACE
from classification.likelihood import CONTENT_FREE, few_shot_prompt, spaced
from classification.requests import FewShot, Sentiment, ZeroShot
from classification.scoring import SimilarityScorer, softmax
from classification.task import Classification, few_shot_rows, sentiment_rows, zero_shot_rows
from shared.errors import InvalidInput, UnknownCheckpoint
from shared.events import Done, result_of
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.traffic import Traffic

LM, ENCODER = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2"
GOAL = "The striker scored twice in the last ten minutes and won the cup final for her club."
BOTH = pytest.mark.parametrize("model", [ENCODER, LM])

R = TypeVar("R")


def ask(endpoint: str, context: Context, **values: Any) -> Done[Any]:
    return collect(SPACE.endpoint(endpoint).run(values, context, Traffic()))


def scores(answer: Classification) -> dict[str, float]:
    return {row["label"]: row["confidence"] for row in answer.confidences}


# -- zero-shot -------------------------------------------------------------------------------------


@BOTH
def test_zero_shot_finds_the_topic(context: Context, model: str) -> None:
    labels = "politics, sports, cooking, finance"
    done = ask("zero_shot", context, text=GOAL, candidate_labels=labels, model=model)
    assert done.result.label == "sports"
    assert set(scores(done.result)) == {"politics", "sports", "cooking", "finance"}
    values = [row["confidence"] for row in done.result.confidences]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-4)
    assert done.run.checkpoint == model
    assert done.run.input_tokens > 10
    assert done.run.seconds_running > 0


def test_zero_shot_is_by_similarity_unless_asked_otherwise(context: Context) -> None:
    done = ask("zero_shot", context, text=GOAL)
    assert done.run.checkpoint == ENCODER
    assert done.result.method == "sentence similarity"
    assert done.result.label == "sports"


def test_the_api_gets_labels_in_the_form_of_a_gradio_label(context: Context) -> None:
    (shown,) = ask("zero_shot", context, text=GOAL, candidate_labels="a, b").result.outputs()
    assert set(shown) == {"label", "confidences", "details"}
    assert shown["confidences"][0] == {"label": shown["label"], "confidence": shown["confidences"][0]["confidence"]}


@BOTH
def test_the_template_counts(context: Context, model: str) -> None:
    values = {"text": GOAL, "candidate_labels": "joy, anger", "model": model}
    topic, feeling = (
        scores(ask("zero_shot", context, **values, hypothesis_template=template).result)
        for template in ("This text is about {}.", "The writer feels {}.")
    )
    assert topic != feeling


def test_the_template_of_a_language_model_is_its_prompt(context: Context) -> None:
    done = ask(
        "zero_shot", context, text=f" {GOAL}\n", candidate_labels="a, b", hypothesis_template="Topic: {}", model=LM
    )
    assert done.result.prompt == f"Text: {GOAL}\nTopic:"


@pytest.mark.parametrize(("before", "expected"), [("Topic: ", " x"), ("Topic:", "x"), ("", " x"), ("a\n", " x")])
def test_the_blank_before_a_label_belongs_to_it(before: str, expected: str) -> None:
    assert spaced("x", before) == expected


def test_words_after_the_label_in_a_template_are_never_ignored(context: Context) -> None:
    """A likelihood is of what comes before and of the label; a full stop may go, other words may not."""
    template = "The writer feels {} about the opposite of this text."
    with pytest.raises(InvalidInput) as caught:
        ask("zero_shot", context, text=GOAL, candidate_labels="joy, anger", hypothesis_template=template, model=LM)
    assert caught.value.field == "hypothesis_template"


def test_multi_label_judges_each_label_by_itself(context: Context) -> None:
    text = "The stadium's new solar roof makes more electricity than the floodlights use."
    few, more = (
        scores(ask("zero_shot", context, text=text, candidate_labels=labels, multi_label=True).result)
        for labels in ("energy, cooking", "cooking, sports stadium, energy, love")
    )
    assert few["energy"] == pytest.approx(more["energy"], abs=1e-4)
    assert few["cooking"] == pytest.approx(more["cooking"], abs=1e-4)
    assert more["energy"] > 0.5 > more["cooking"]
    assert more["sports stadium"] > 0.5


def test_multi_label_by_likelihood_judges_each_label_by_itself(context: Context) -> None:
    few, more = (
        scores(ask("zero_shot", context, text=GOAL, candidate_labels=labels, multi_label=True, model=LM).result)
        for labels in ("sports, cooking", "cooking, sports, football, love")
    )
    assert few["sports"] == pytest.approx(more["sports"], abs=0.03)  # bfloat16
    assert few["cooking"] == pytest.approx(more["cooking"], abs=0.03)
    assert more["sports"] > more["cooking"]
    assert sum(more.values()) > 1.1


@BOTH
def test_fifty_labels_and_markup_come_back_as_they_were(context: Context, model: str) -> None:
    names = [f"<b>topic {i}</b> & more" for i in range(49)] + ["sports"]
    done = ask("zero_shot", context, text=GOAL, candidate_labels="\n".join(names), model=model)
    assert sorted(scores(done.result)) == sorted(names)


@BOTH
def test_texts_together_are_answered_as_alone(context: Context, model: str) -> None:
    texts = [GOAL, "Whisk the eggs with the sugar until pale.", "Shares of the bank fell again. " * 8]
    requests = [
        ZeroShot.model_validate({"text": t, "candidate_labels": "sports, cooking, finance", "model": model})
        for t in texts
    ]
    with result_of(context.borrow(model, "zero-shot-classification")) as lease:
        together = zero_shot_rows(requests, lease)
        alone = [zero_shot_rows([request], lease)[0] for request in requests]
    assert [answer.label for answer in together][:2] == ["sports", "cooking"]
    for one, other in zip(together, alone, strict=True):
        assert scores(one) == pytest.approx(scores(other), abs=0.03)
        assert one.row() == {"label": one.label, "confidence": one.confidences[0]["confidence"]}


@pytest.mark.parametrize(
    ("endpoint", "model", "said"),
    [
        ("zero_shot", "nobody", "no checkpoint of this name"),
        ("sentiment", "firefox-translations-en-pt", "does not do text-classification"),
        ("few_shot", f"{LM}@main", "is pinned at"),
    ],
)
def test_a_checkpoint_that_cannot_is_refused_by_name(context: Context, endpoint: str, model: str, said: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=said) as caught:
        ask(endpoint, context, text="x", model=model)
    assert caught.value.field == "model"


# -- few-shot --------------------------------------------------------------------------------------

REVIEWS = [
    ["The staff upgraded us without being asked.", "positive"],
    ["Thin walls and a lumpy pillow.", " negative "],
]
GOLDEN = """\
Classify this review:
The staff upgraded us without being asked.
Label: positive

Classify this review:
Thin walls and a lumpy pillow.
Label: negative

Classify this review:
Spotless and quiet.
Label:"""


def test_the_prompt_is_what_the_course_teaches(context: Context) -> None:
    done = ask("few_shot", context, text=" Spotless and quiet. ", examples=REVIEWS, instruction="Classify this review:")
    assert done.result.prompt == GOLDEN
    shown, prompt = done.result.outputs()
    assert prompt == GOLDEN
    assert shown["details"]["prompt"] == GOLDEN


def test_the_prompt_with_one_example_none_and_no_instruction() -> None:
    one = FewShot.model_validate({"text": "x", "examples": [["good", "positive"]], "instruction": " "})
    assert few_shot_prompt(one, "fine") == "good\nLabel: positive\n\nfine\nLabel:"
    assert few_shot_prompt(FewShot.model_validate({"text": "x"}), "fine") == "Classify this text:\nfine\nLabel:"


def test_few_shot_gives_calibrated_and_raw_scores(context: Context) -> None:
    text = "Spotless, quiet, and the breakfast was a delight."
    done = ask("few_shot", context, text=text, examples=REVIEWS, instruction="Classify this review:")
    details = done.result.outputs()[0]["details"]
    raw = {row["label"]: row["confidence"] for row in details["raw"]}
    calibrated = scores(done.result)
    assert set(raw) == set(calibrated) == {"positive", "negative"}
    assert sum(raw.values()) == pytest.approx(1, abs=1e-4)
    assert sum(calibrated.values()) == pytest.approx(1, abs=1e-4)
    assert raw != calibrated
    assert details["method"] == "label likelihood, calibrated"
    assert done.result.label == "positive"


def test_calibration_is_what_zhao_et_al_compute(context: Context) -> None:
    request = FewShot.model_validate({"text": GOAL, "examples": REVIEWS})
    with result_of(context.borrow(LM, "few-shot-classification")) as lease:
        prompts = [few_shot_prompt(request, text) for text in (GOAL, *CONTENT_FREE)]
        found = lease.causal_lm().label_likelihoods(prompts, [" positive", " negative"], lease.compute)
        (answer,) = few_shot_rows([request], lease)
    likely = softmax(np.array([[x.per_token for x in row] for row in found]))
    unbiased = likely[0] / likely[1:].mean(axis=0)
    expected = dict(zip(("positive", "negative"), unbiased / unbiased.sum(), strict=True))
    assert scores(answer) == pytest.approx(expected, abs=1e-3)
    raw = {row["label"]: row["confidence"] for row in answer.raw}
    assert raw == pytest.approx(dict(zip(expected, likely[0], strict=True)), abs=1e-3)


def test_without_content_calibrated_scores_are_near_even(context: Context) -> None:
    done = ask("few_shot", context, text="N/A", examples=REVIEWS[:1] * 3)
    raw = {row["label"]: row["confidence"] for row in done.result.raw}
    assert abs(scores(done.result)["positive"] - 0.5) < abs(raw["positive"] - 0.5)


def test_the_share_of_the_context_window_is_shown(context: Context) -> None:
    none, two = (ask("few_shot", context, text=GOAL, examples=examples).result for examples in ([], REVIEWS))
    assert 0 < none.window_share < two.window_share < 0.02
    with result_of(context.borrow(LM, "few-shot-classification")) as lease:
        assert two.window_share == len(lease.causal_lm().tokenize(two.prompt)) / lease.causal_lm().context_window


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_computed(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with result_of(context.borrow(LM, "few-shot-classification")) as lease:
        engine = lease.engine
    monkeypatch.setattr(engine, "label_likelihoods", lambda *_: pytest.fail("it was computed"))
    monkeypatch.setattr(engine, "context_window", 40)
    for endpoint, field in (("few_shot", "text"), ("zero_shot", "text"), ("sentiment", "text")):
        with pytest.raises(InvalidInput, match=r"makes a prompt of \d+ tokens and .* reads 40 at most") as caught:
            ask(endpoint, context, text=GOAL * 3, model=LM)
        assert caught.value.field == field


def test_by_similarity_examples_are_centroids(context: Context) -> None:
    # Code words that only the examples explain.
    examples = [["The oven must be hot.", "A"], ["Add a pinch of salt.", "A"], ["The goalkeeper was sent off.", "B"]]
    done = ask("few_shot", context, text=GOAL, candidate_labels="A, B", examples=examples, model=ENCODER)
    assert done.result.label == "B"
    assert sum(scores(done.result).values()) == pytest.approx(1, abs=1e-4)
    none = ask("few_shot", context, text=GOAL, candidate_labels="sports, cooking", model=ENCODER)
    assert none.result.label == "sports"
    assert none.result.prompt == ""


def test_similarity_is_to_the_mean_of_a_labels_examples(context: Context) -> None:
    groups = [["The oven must be hot.", "Add a pinch of salt."], ["The goalkeeper was sent off."]]
    with result_of(context.borrow(ENCODER, "few-shot-classification")) as lease:
        encoder = lease.sentence_encoder()
        (score,) = SimilarityScorer(lease, encoder).similarities([GOAL], ("A", "B"), groups)
        vectors = encoder.encode([GOAL, *groups[0], *groups[1]])
    centroid = vectors[1:3].mean(axis=0)
    similarities = np.array([vectors[0] @ centroid / np.linalg.norm(centroid), vectors[0] @ vectors[3]])
    np.testing.assert_allclose(score.probabilities, softmax(30 * similarities), atol=1e-4)


def test_an_instruction_that_the_encoder_cannot_follow_is_refused_by_name(context: Context) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask("few_shot", context, text=GOAL, instruction="Answer with the opposite:", model=ENCODER)
    assert caught.value.field == "instruction"


def test_few_shot_texts_together_are_answered_as_alone(context: Context) -> None:
    requests = [FewShot.model_validate({"text": t, "examples": REVIEWS}) for t in ("Lovely!", GOAL, "Dirty. " * 20)]
    with result_of(context.borrow(LM, "few-shot-classification")) as lease:
        together = few_shot_rows(requests, lease)
        alone = [few_shot_rows([request], lease)[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert one.prompt == other.prompt
        assert scores(one) == pytest.approx(scores(other), abs=0.03)


# -- sentiment -------------------------------------------------------------------------------------


@BOTH
def test_sentiment_says_positive_or_negative(context: Context, model: str) -> None:
    for text, expected in (
        ("I love teaching machine learning!", "positive"),
        ("A dirty room, rude staff, cold food. Never again.", "negative"),
    ):
        done = ask("sentiment", context, text=text, model=model)
        assert done.result.label == expected
        assert set(scores(done.result)) == {"positive", "negative"}
        assert sum(scores(done.result).values()) == pytest.approx(1, abs=1e-4)


def test_sentiment_is_by_likelihood_unless_asked_otherwise(context: Context) -> None:
    done = ask("sentiment", context, text="Fine.")
    assert done.run.checkpoint == LM
    assert done.result.prompt == "Review: Fine.\nSentiment:"
    assert done.result.method == "label likelihood"


def test_sentiments_together_are_answered_as_alone(context: Context) -> None:
    requests = [Sentiment(text=t) for t in ("I love it!", "Awful.", "Good value, " * 30)]
    with result_of(context.borrow(LM, "text-classification")) as lease:
        together = sentiment_rows(requests, lease)
        for request, answer in zip(requests, together, strict=True):
            assert scores(sentiment_rows([request], lease)[0]) == pytest.approx(scores(answer), abs=0.03)


# -- the Space -------------------------------------------------------------------------------------


def test_examples_of_the_space_are_valid(context: Context) -> None:
    for name, examples in SPACE.examples.items():
        for example in examples:
            SPACE.endpoint(name).request.model_validate(example["inputs"], context={"settings": context.settings})


def test_loans_are_given_back(context: Context) -> None:
    ask("zero_shot", context, text=GOAL)
    with pytest.raises(InvalidInput):
        ask("zero_shot", context, text="")
    assert all(row["borrows"] == 0 for row in context.runtime.cache.report()["checkpoints"])
    assert context.runtime.admission.report() == {"running": 0, "queued": 0}
