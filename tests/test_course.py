"""The course's checkpoints, tiny and with random weights, from a Hub through every Space.

The answers are those that transformers' own `forward` and `generate` give on the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from classification import SPACE as CLASSIFICATION
from shared.engines.seq2seq.small100 import LanguageCodeTokenizer
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.runtime import start
from shared.serving.traffic import Traffic
from shared.settings import Settings
from tests.course_hub import Course, course, pin_to
from tests.course_vectors import VECTORS, Vector
from translation import SPACE as TRANSLATION

pytestmark = pytest.mark.slow

GPT2, DIALOGPT = "openai-community/gpt2", "microsoft/DialoGPT-medium"
LLAMA = "HuggingFaceTB/SmolLM2-135M-Instruct"
MNLI = "FacebookAI/roberta-large-mnli"
SST2 = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
T5, FLAN = "google-t5/t5-small", "google/flan-t5-small"
MARIAN, SMALL100 = "Helsinki-NLP/opus-mt-en-es", "alirezamsh/small100"
BERT, SQUAD = "google-bert/bert-base-uncased", "distilbert/distilbert-base-cased-distilled-squad"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    with course(tmp_path_factory.mktemp("course")) as taught:
        yield taught


def reference(auto_class: str, folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer as transformers reads them, in float32."""
    model = getattr(transformers, auto_class).from_pretrained(folder, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def written(model: Any, tokenizer: Any, text: str, **options: Any) -> str:
    """What `generate` writes, source left out for a decoder."""
    inputs = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, pad_token_id=model.config.pad_token_id or 0, **options)[0]
    new = ids if model.config.is_encoder_decoder else ids[inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True)


def said_of(model: Any, task: str) -> dict[str, Any]:
    """What config.json says of a task, as `generate` takes it; length and prefix are the call's own."""
    return {
        name: value
        for name, value in model.config.task_specific_params[task].items()
        if name not in ("prefix", "max_length")
    }


def softmax(logits: Any) -> np.ndarray:
    return torch.as_tensor(logits).softmax(-1).numpy()


# -- generation and chat ---------------------------------------------------------------------------


def test_gpt2_completes(taught: Course) -> None:
    completion, run = taught.ask("generate", prompt="Once upon a time", max_new_tokens=12, model=GPT2)
    expected = written(*reference("AutoModelForCausalLM", taught.folders[GPT2]), "Once upon a time", max_new_tokens=12)
    assert completion == expected.rstrip("\ufffd")  # of a character that is not finished nothing is shown
    assert (run["checkpoint"], run["engine"]) == (GPT2, "compiled-fp32")
    assert len(run["revision"]) == 40


def test_dialogpt_talks_in_turns_of_its_own_kind(taught: Course) -> None:
    first, second = "Could you tell me how to cook rice?", "Could I just use a plain old pot?"
    model, tokenizer = reference("AutoModelForCausalLM", taught.folders[DIALOGPT])
    reply, run = taught.ask("chat", message=first, max_new_tokens=10, model=DIALOGPT)
    end = tokenizer.eos_token
    assert reply == written(model, tokenizer, f"{first}{end}", max_new_tokens=10)
    assert (run["checkpoint"], run["engine"]) == (DIALOGPT, "compiled-fp32")
    history = [{"role": "user", "content": first}, {"role": "assistant", "content": "In water."}]
    again, _ = taught.ask("chat", message=second, history=history, max_new_tokens=10, model=DIALOGPT)
    assert again == written(model, tokenizer, f"{first}{end}In water.{end}{second}{end}", max_new_tokens=10)


def test_dialogpt_takes_no_system_prompt_and_gpt2_does_not_chat(taught: Course) -> None:
    with pytest.raises(AppError, match=r"system_prompt: .*system prompt"):
        taught.ask("chat", message="Hello.", system_prompt="Be kind.", model=DIALOGPT)
    with pytest.raises(AppError, match="does not do conversational"):
        taught.ask("chat", message="Hello.", model=GPT2)


def test_a_llama_follows_its_own_template(taught: Course) -> None:
    model, tokenizer = reference("AutoModelForCausalLM", taught.folders[LLAMA])
    model = model.to(torch.bfloat16) if transformers.AutoConfig.from_pretrained(taught.folders[LLAMA]).dtype else model
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    reply, run = taught.ask("chat", message="Hello there", system_prompt="Be brief.", max_new_tokens=8, model=LLAMA)
    if run["engine"] != "torch-bf16":
        model = model.float()
    expected = written(model, tokenizer, prompt, max_new_tokens=8)
    assert reply == expected


# -- classification --------------------------------------------------------------------------------


@pytest.mark.parametrize("repo", [MNLI, "user/bart-order-mnli"])
def test_entailment_takes_its_label_order_from_the_config(taught: Course, repo: str) -> None:
    if repo.startswith("user/"):
        add(taught, repo)
    text, names = "I have a problem with my iphone!", ["urgent", "phone", "tablet"]
    template = "This example is {}."
    model, tokenizer = reference("AutoModelForSequenceClassification", taught.folders[repo])
    place = {label.lower(): i for label, i in model.config.label2id.items()}
    inputs = tokenizer([text] * 3, [template.format(n) for n in names], return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = model(**inputs).logits
    scores, run = taught.ask(
        "zero_shot", text=text, candidate_labels=", ".join(names), hypothesis_template=template, model=repo
    )
    found = {row["label"]: row["confidence"] for row in scores["confidences"]}
    expected = dict(zip(names, softmax(logits[:, place["entailment"]]), strict=True))
    assert found == pytest.approx(expected, abs=2e-5)
    assert run["checkpoint"] == repo
    each, _ = taught.ask(
        "zero_shot",
        text=text,
        candidate_labels=", ".join(names),
        hypothesis_template=template,
        multi_label=True,
        model=repo,
    )
    against = softmax(logits[:, [place["contradiction"], place["entailment"]]])[:, 1]
    assert {r["label"]: r["confidence"] for r in each["confidences"]} == pytest.approx(
        dict(zip(names, against, strict=True)), abs=2e-5
    )


def test_sentiment_by_the_head_of_sst2(taught: Course) -> None:
    text = "I love teaching machine learning!"
    model, tokenizer = reference("AutoModelForSequenceClassification", taught.folders[SST2])
    with torch.inference_mode():
        shares = softmax(model(**tokenizer(text, return_tensors="pt")).logits)[0]
    scores, run = taught.ask("sentiment", text=text, model=SST2)
    expected = {model.config.id2label[i].lower(): share for i, share in enumerate(shares)}
    assert set(expected) == {"positive", "negative"}
    assert {r["label"]: r["confidence"] for r in scores["confidences"]} == pytest.approx(expected, abs=2e-5)
    assert run["checkpoint"] == SST2


def test_a_text_beyond_the_window_is_answered_with_a_warning(taught: Course) -> None:
    _, run = taught.ask("sentiment", text="A good film. " * 400, model=SST2)
    assert "Only about the first" in run["warning"]


# -- reading ---------------------------------------------------------------------------------------


def test_bert_fills_masks(taught: Course) -> None:
    model, tokenizer = reference("AutoModelForMaskedLM", taught.folders[BERT])
    text = "The [MASK] of France is [MASK]."
    inputs = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        shares = softmax(model(**inputs).logits[0])
    (masks, run) = taught.ask("fill_mask", text=text, top_k=4, model=BERT)
    places = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    assert len(masks) == len(places) == 2
    for row, place in zip(masks, places, strict=True):
        best = np.argsort(-shares[place], kind="stable")[:4]
        assert [token["id"] for token in row] == best.tolist()
        assert [token["score"] for token in row] == pytest.approx(shares[place][best].tolist(), abs=2e-5)
    assert run["checkpoint"] == BERT


def test_distilbert_points_at_the_answer(taught: Course) -> None:
    model, tokenizer = reference("AutoModelForQuestionAnswering", taught.folders[SQUAD])
    question, text = "Where is the sea?", "The sea is near Lisbon. The train leaves at nine."
    inputs = tokenizer(question, text, return_tensors="pt", return_offsets_mapping=True)
    offsets, words = inputs.pop("offset_mapping")[0].tolist(), inputs.sequence_ids(0)
    with torch.inference_mode():
        out = model(**inputs)
    # The first token stays in the sums, as in SQuAD's second version, where it means that there is no answer.
    of_text = torch.tensor([word != 1 and place > 0 for place, word in enumerate(words)])
    start = softmax(out.start_logits[0].masked_fill(of_text, -1e9))
    end = softmax(out.end_logits[0].masked_fill(of_text, -1e9))
    best, i, j = max(
        (float(start[i] * end[j]), i, j)
        for i in range(len(words))
        for j in range(i, min(i + 30, len(words)))
        if words[i] == words[j] == 1
    )
    answers, run = taught.ask("answer_question", question=question, text=text, top_k=1, model=SQUAD)
    assert answers[0]["answer"] == text[offsets[i][0] : offsets[j][1]]
    assert answers[0]["score"] == pytest.approx(best, abs=2e-5)
    assert run["checkpoint"] == SQUAD


# -- summaries -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("repo", [T5, "user/t5"])
def test_t5_summarizes_as_its_config_says(taught: Course, repo: str) -> None:
    """Behind its prefix, with its beams, penalty and least length: those of the catalog, and one that was added."""
    text = "The train leaves at nine. We take the bus to the sea. The children play in the garden."
    model, tokenizer = reference("AutoModelForSeq2SeqLM", taught.folders[T5])
    if repo.startswith("user/"):
        taught.hub.add(repo, taught.folders[T5])
        add(taught, repo)
    prompt, said = f"summarize: {text}", said_of(model, "summarization")
    for limit in (48, 12):  # the latter is less than the config's least, and counts
        summary, run = taught.ask("summarize", text=text, max_new_tokens=limit, model=repo)
        assert summary == written(model, tokenizer, prompt, max_new_tokens=limit, **said).strip()
        assert summary != written(model, tokenizer, prompt, max_new_tokens=limit, num_beams=4).strip()
        assert run["checkpoint"] == repo
    greedy, _ = taught.ask("summarize", text=text, max_new_tokens=48, num_beams=1, model=repo)
    assert greedy == written(model, tokenizer, prompt, max_new_tokens=48, **said | {"num_beams": 1}).strip()
    assert greedy != summary


def test_flan_t5_is_shown_no_one_or_several_examples(taught: Course) -> None:
    model, tokenizer = reference("AutoModelForSeq2SeqLM", taught.folders[FLAN])
    text, shots = "Ann: Hello.\nBo: Goodbye.", [["Ann: Bus?\nBo: Train.", "They take the train."], ["A: Sea?", "Yes."]]
    for count in range(3):
        summary, run = taught.ask(
            "summarize", text=text, style="dialogue", max_new_tokens=9, model=FLAN, examples=shots[:count]
        )
        blocks = [f"Summarize this dialogue:\n{t}\nSummary: {s}" for t, s in shots[:count]]
        prompt = "\n\n".join([*blocks, f"Summarize this dialogue:\n{text}\nSummary:"])
        assert summary == written(model, tokenizer, prompt, max_new_tokens=9).strip()
        assert run["checkpoint"] == FLAN
    with pytest.raises(AppError, match=r"examples: .*learns from no examples"):
        taught.ask("summarize", text=text, model=T5, examples=shots)


def test_a_text_longer_than_the_window_is_read_in_parts(taught: Course) -> None:
    summary, run = taught.ask("summarize", text="The sea is near. " * 300, max_new_tokens=8, model=FLAN)
    assert run["input_tokens"] > 512
    assert isinstance(summary, str)


# -- translation -----------------------------------------------------------------------------------


def test_a_pair_of_the_hub_is_fetched_only_when_it_is_named(taught: Course) -> None:
    before = taught.hub.sent("/storage/")
    with pytest.raises(AppError, match=f"this needs {MARIAN}, .*MB from the Hub. Name it as the model"):
        taught.ask("translate", text="The sea is near.", src_lang="en", tgt_lang="es")
    assert taught.hub.sent("/storage/") == before
    named, run = taught.ask("translate", text="The sea is near.", src_lang="en", tgt_lang="es", model=MARIAN)
    assert run["checkpoint"] == MARIAN
    model, tokenizer = reference("AutoModelForSeq2SeqLM", taught.folders[MARIAN])
    limit = 3 * len(tokenizer("The sea is near.").input_ids) + 20
    assert model.generation_config.num_beams == 4
    assert named == written(model, tokenizer, "The sea is near.", max_new_tokens=limit)
    greedy, _ = taught.ask("translate", text="The sea is near.", src_lang="en", tgt_lang="es", num_beams=1)
    assert greedy == written(model, tokenizer, "The sea is near.", num_beams=1, max_new_tokens=limit)
    assert greedy != named
    # From now on it is here, and what needs it uses it.
    again, run = taught.ask("translate", text="The sea is near.", src_lang="en", tgt_lang="es")
    assert (again, run["checkpoint"]) == (named, MARIAN)


def test_t5_translates_behind_the_prefix_of_the_pair(taught: Course) -> None:
    text = "life is like a box of chocolates"
    model, tokenizer = reference("AutoModelForSeq2SeqLM", taught.folders[T5])
    for code, name in (("fr", "French"), ("de", "German"), ("ro", "Romanian")):
        prompt, said = f"translate English to {name}: {text}", said_of(model, f"translation_en_to_{code}")
        longest = 3 * len(tokenizer(prompt)["input_ids"]) + 20
        found, run = taught.ask("translate", text=text, src_lang="en", tgt_lang=code, model=T5)
        assert found == written(model, tokenizer, prompt, max_new_tokens=longest, **said)
        assert run["checkpoint"] == T5
        greedy, _ = taught.ask("translate", text=text, src_lang="en", tgt_lang=code, num_beams=1, model=T5)
        assert greedy == written(model, tokenizer, prompt, max_new_tokens=longest)
    with pytest.raises(AppError, match="does not do translation from fr to en"):
        taught.ask("translate", text="la vie", src_lang="fr", tgt_lang="en", model=T5)


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ("hi", "fr", "जीवन एक चॉकलेट बॉक्स की तरह है।"),
        ("zh", "en", "生活就像一盒巧克力。"),
        ("he", "en", "החיים כמו קופסה של שוקולדים"),
        ("he", "yi", "החיים כמו קופסה של שוקולדים"),
        ("auto", "fr", "जीवन एक चॉकलेट बॉक्स की तरह है।"),
    ],
)
def test_small100_is_told_the_target_language_by_its_encoder(
    taught: Course, source: str, target: str, text: str
) -> None:
    found, run = taught.ask("translate", text=text, src_lang=source, tgt_lang=target, model=SMALL100)
    folder = taught.folders[SMALL100]
    model: Any = transformers.M2M100ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = LanguageCodeTokenizer.read(folder, code_of="target")
    ids = tokenizer.encode(text, (source, target))
    with torch.inference_mode():
        best = model.generate(torch.tensor([ids]), max_new_tokens=3 * len(ids) + 20)
    assert found == tokenizer.decode(best[0].tolist())
    assert run["checkpoint"] == SMALL100
    if source == "auto":
        assert "Hindi (hi)" in run["warning"]


# -- sound, and models that are added by their id ---------------------------------------------------


def add(taught: Course, repo: str) -> Any:
    """What the Models tab's "Add" does."""
    from shared.events import result_of
    from shared.fetching.hub_models import added

    runtime = taught.suite.runtime
    assert result_of(added((repo,), runtime.catalog, runtime.hub)) == []
    return runtime.catalog.choose_by_id(repo)


def test_a_fine_tuned_wav2vec2_names_genres_through_its_space(taught: Course, tmp_path: Path) -> None:
    checkpoint = add(taught, "user/wav2vec2-genres")
    assert (checkpoint.kind, checkpoint.tasks) == ("audio-classifier", ("audio-classification",))
    assert checkpoint.licence == "apache-2.0"
    sound = 0.5 * np.sin(np.linspace(0, 4400, 32_000)).astype(np.float32)
    soundfile.write(tmp_path / "two-seconds.wav", sound, 16_000, subtype="FLOAT")
    folder = taught.folders["user/wav2vec2-genres"]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModelForAudioClassification.from_pretrained(folder).eval()
    seconds = [sound[:16_000], sound[16_000:]]  # the course's windows
    with torch.inference_mode():
        inputs = [extractor(second, sampling_rate=16_000, return_tensors="pt") for second in seconds]
        expected = np.stack([softmax(model(**one).logits[0]) for one in inputs])

    recording = handle_file(str(tmp_path / "two-seconds.wav"))
    whole, timeline, run = taught.ask("audio_genre", audio=recording, top_k=5, model="user/wav2vec2-genres")
    assert run["checkpoint"] == "user/wav2vec2-genres"
    names = list(model.config.id2label.values())
    assert set(names) == {"Bachata", "Cumbia", "Merengue", "Salsa", "Vallenato"}
    for found, right in zip([moment["confidences"] for moment in timeline], expected, strict=True):
        assert {one["label"]: one["confidence"] for one in found} == pytest.approx(
            dict(zip(names, right, strict=True)), abs=1e-4
        )
    assert whole["label"] == names[int(expected.mean(0).argmax())]


def test_the_report_tells_what_is_fetched(taught: Course) -> None:
    catalog, german = taught.suite.runtime.catalog, "Helsinki-NLP/opus-mt-de-en"
    pinned = catalog.choose_by_id(german)
    try:
        pin_to(taught.suite, {german: ""})
        (report, _) = taught.ask("models")
    finally:
        catalog.add(pinned)
    rows = {row["id"]: row for row in report["catalog"]}
    assert report["hub"] == {"state": "answers", "reason": ""}
    assert rows[GPT2]["origin"] == "hub"
    assert rows["google-t5/t5-base"]["fetched"] is False
    assert rows[german]["pinned"] is False
    assert rows["google-t5/t5-base"]["pinned"] is True
    assert rows["all-MiniLM-L6-v2"]["fetched"] is True


def test_in_the_hub_profile_the_courses_checkpoints_are_the_defaults(taught: Course, tmp_path: Path) -> None:
    runtime = start(Settings(profile="hub", cache_dir=tmp_path))
    for checkpoint in taught.suite.runtime.catalog:
        runtime.catalog.add(checkpoint)
    context = Context(runtime, "test")
    try:
        for task in ("text-generation", "conversational", "summarization", "fill-mask", "question-answering"):
            assert runtime.catalog.for_task(task)[0].profile == "hub"
        assert "embedded" not in {c.profile for c in runtime.catalog.for_task("summarization")}, "none of it is here"
        asked = CLASSIFICATION.endpoint("sentiment").run({"text": "A good film."}, context, Traffic())
        done = collect(asked)
        assert done.run.checkpoint == SST2
        assert done.run.revision == runtime.catalog.choose_by_id(SST2).revision
        done = collect(TRANSLATION.endpoint("translate").run({"text": "The sea is near."}, context, Traffic()))
        assert (done.run.checkpoint, done.result.pair, done.run.warning) == (MARIAN, ("en", "es"), "")
        hindi = {"text": "जीवन एक चॉकलेट बॉक्स की तरह है।", "src_lang": "hi"}
        done = collect(TRANSLATION.endpoint("translate").run(hindi, context, Traffic()))
        assert (done.run.checkpoint, done.result.pair) == (SMALL100, ("hi", "en"))
        assert done.run.warning == "It was translated into English (en), since tgt_lang is empty."
    finally:
        runtime.lane.close()
        runtime.cache.close()


# -- what `make test-hub` asks of the real ones ------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_the_courses_calls_are_answered(taught: Course, vector: Vector) -> None:
    """Random weights do not say what the real ones say; that every call is answered and checked can be seen here."""
    inputs = {**vector.inputs, "model": vector.inputs["model"].replace("t5-base", "t5-small")}
    outputs = taught.ask(vector.endpoint, **inputs)
    assert outputs[-1]["checkpoint"] == inputs["model"]
    if vector.endpoint != "zero_shot" or len(outputs[0]["confidences"]) > 2:
        with pytest.raises(AssertionError):
            vector.check(outputs)
