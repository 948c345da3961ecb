"""Any model of a Hub as a catalog entry: what it is, is read from its config and its card, and what is not for us is
refused before anything of it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.checkpoints.repository import WantedFile, wanted_files
from shared.errors import SuiteError, UnknownCheckpoint, WeightsCorrupt
from shared.events import result_of
from shared.fetching import hub_errors
from shared.fetching.hub_link import HubLink
from shared.fetching.hub_models import UNTESTED, added, described
from shared.serving.background import begin_asking_the_hub
from shared.serving.runtime import start
from shared.settings import Settings
from tests.course_hub import MAKERS, push
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to
from tests.tiny_checkpoints import decoders


@dataclass
class Shelf:
    """A Hub with a tiny checkpoint of every architecture."""

    hub: StandInHub
    home: Path
    commits: dict[str, str]
    gpt2: dict[str, bytes]
    """The files of one, to make others of."""

    def put(self, repo: str, config: Mapping[str, Any] | None = None, **more: Any) -> Checkpoint:
        """GPT-2 under another name, with changes to its config, described."""
        files = dict(self.gpt2)
        content = {**json.loads(files["config.json"]), **(config or {})}
        files["config.json"] = json.dumps(
            {name: value for name, value in content.items() if value is not None}
        ).encode()
        self.hub.add(repo, files, **more)
        return described(repo, HubLink("auto"))

    def said(self, repo: str, config: Mapping[str, Any] | None = None, **more: Any) -> str:
        """What is said against it, "" where nothing is."""
        try:
            self.put(repo, config, **more)
        except SuiteError as refused:
            return refused.message
        return ""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, StandInHub() as hub:
        turn_clients_to(hub.endpoint, folder / "hf-home", patch)
        patch.setattr(hub_errors, "BACKOFF", 0.01)
        commits = {repo: push(hub, repo, folder / repo.replace("/", "--")) for repo in MAKERS}
        decoders.gpt2(folder / "plain")
        gpt2 = {file.name: file.read_bytes() for file in (folder / "plain").iterdir()}
        yield Shelf(hub, folder / "hf-home", commits, gpt2)


@pytest.fixture
def shelf(made: Shelf) -> Iterator[Shelf]:
    yield made
    made.hub.faults.clear()
    assert not (made.home / "hub").exists(), "to describe a model, nothing of it is kept"


# -- what each architecture is ---------------------------------------------------------------------

LANGUAGE_MODEL = ("text-generation", "few-shot-classification", "zero-shot-classification")

EXPECTED: dict[str, tuple[str, str, tuple[str, ...], int]] = {
    "openai-community/gpt2": (
        "causal-lm",
        "decoders.batched",
        (*LANGUAGE_MODEL, "conversational", "summarization"),
        1024,
    ),
    "microsoft/DialoGPT-medium": (
        "causal-lm",
        "decoders.batched",
        (*LANGUAGE_MODEL, "conversational", "summarization"),
        1024,
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        "causal-lm",
        "decoders.batched",
        (*LANGUAGE_MODEL, "conversational", "summarization"),
        2048,
    ),
    "FacebookAI/roberta-large-mnli": (
        "sequence-classifier",
        "encoders.sequence_classifier",
        ("zero-shot-classification",),
        514,
    ),
    "user/bart-order-mnli": ("sequence-classifier", "encoders.sequence_classifier", ("zero-shot-classification",), 514),
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": (
        "sequence-classifier",
        "encoders.sequence_classifier",
        ("text-classification",),
        512,
    ),
    "google-t5/t5-small": ("seq2seq", "seq2seq.batched", ("summarization", "translation"), 512),
    "google/flan-t5-small": ("seq2seq", "seq2seq.batched", ("summarization", "translation"), 512),
    "Helsinki-NLP/opus-mt-en-es": ("seq2seq", "seq2seq.batched", ("translation",), 512),
    "alirezamsh/small100": ("seq2seq", "seq2seq.batched", ("translation",), 1024),
    "google-bert/bert-base-uncased": ("masked-lm", "encoders.masked_lm", ("fill-mask",), 512),
    "distilbert/distilbert-base-cased-distilled-squad": (
        "question-answerer",
        "encoders.question_answering",
        ("question-answering",),
        512,
    ),
    "user/wav2vec2-genres": ("audio-classifier", "audio.audio_classifier", ("audio-classification",), 512),
}


@pytest.mark.parametrize("repo", EXPECTED)
def test_every_architecture_of_the_course(shelf: Shelf, repo: str) -> None:
    found = described(repo, HubLink("auto"))
    assert (found.kind, found.engine, found.tasks, found.context_window) == EXPECTED[repo]
    assert found.id == repo
    assert found.profile == "hub"
    assert found.revision == shelf.commits[repo]
    assert found.authors == repo.split("/")[0]
    assert found.limits == UNTESTED
    assert found.default_for == ()
    there = [WantedFile(name, len(data)) for name, data in shelf.hub.files(repo).items()]
    assert found.download_bytes == sum(file.size for file in wanted_files(there, repo))


def test_a_base_without_a_head_is_refused(shelf: Shelf) -> None:
    with pytest.raises(UnknownCheckpoint, match="names Wav2Vec2ForPreTraining, which no engine here runs"):
        described("facebook/wav2vec2-base", HubLink("auto"))


def test_parameters_are_those_that_the_hub_counted(shelf: Shelf) -> None:
    from safetensors.torch import load

    found = described("openai-community/gpt2", HubLink("auto"))
    tensors = load(shelf.hub.files("openai-community/gpt2")["model.safetensors"])
    assert found.parameters == sum(tensor.numel() for tensor in tensors.values())
    half = described("HuggingFaceTB/SmolLM2-135M-Instruct", HubLink("auto"))
    assert half.source.bytes_per_parameter == 2  # pyright: ignore[reportAttributeAccessIssue] - it is a HubSource


def test_a_sentence_encoder_is_told_by_its_library(shelf: Shelf) -> None:
    repo = "google-bert/bert-base-uncased"
    shelf.hub.add("user/sentences", shelf.hub.files(repo), card={"library_name": "sentence-transformers"})
    found = described("user/sentences", HubLink("auto"))
    assert (found.kind, found.engine) == ("sentence-encoder", "encoders.reference")
    assert "feature-extraction" in found.tasks


# -- card and config -------------------------------------------------------------------------------


def test_licence_and_languages_of_the_card(shelf: Shelf) -> None:
    card = {"license": "apache-2.0", "language": ["pt", "EN", "multilingual", "zh-Hans", 7, {"a": 1}, "ast"]}
    found = shelf.put("user/card", card=card)
    assert found.licence == "apache-2.0"
    assert found.languages == ("pt", "en", "ast")
    assert shelf.put("user/one-language", card={"language": "es"}).languages == ("es",)
    without = shelf.put("user/no-card")
    assert (without.licence, without.languages) == ("not stated", ("en",))


@pytest.mark.parametrize(
    ("repo", "pairs"),
    [
        ("Helsinki-NLP/opus-mt-en-es", (("en", "es"),)),
        ("user/opus-mt-de-ZH", (("de", "zh"),)),
        ("user/opus-mt-tc-big-en-pt", (("en", "pt"),)),
        ("user/opus-mt-ast-en", (("ast", "en"),)),
        ("user/opus-mt-en-en", ()),
        ("user/opus-mt-ROMANCE-en", ()),
        ("user/translator", ()),
    ],
)
def test_pairs_of_marian_names(shelf: Shelf, repo: str, pairs: tuple[tuple[str, str], ...]) -> None:
    if repo not in shelf.commits:
        shelf.hub.add(repo, shelf.hub.files("Helsinki-NLP/opus-mt-en-es"))
    found = described(repo, HubLink("auto"))
    assert found.pairs == pairs
    assert found.tasks == (("translation",) if pairs else ("summarization",))
    assert {code for pair in pairs for code in pair} <= set(found.languages)


def test_m2m100s_family_translates_between_any_two_of_its_hundred_languages(shelf: Shelf) -> None:
    found = described("alirezamsh/small100", HubLink("auto"))
    assert found.any_pair
    assert found.languages == Catalog.read().choose_by_id("alirezamsh/small100").languages
    files = {name: data for name, data in shelf.hub.files("alirezamsh/small100").items() if name != "vocab.json"}
    shelf.hub.add("user/nllb", files)
    with pytest.raises(UnknownCheckpoint, match="user/nllb keeps its vocabulary in another way"):
        described("user/nllb", HubLink("auto"))


def test_pairs_and_prefixes_of_t5s_task_parameters(shelf: Shelf) -> None:
    files = dict(shelf.hub.files("google-t5/t5-small"))
    tasks = {
        "summarization": {"prefix": "summarize: ", "num_beams": 4},
        "translation_en_to_fr": {"prefix": "translate English to French: "},
        "translation_en_to_de": {"prefix": "translate English to German: "},
    }
    for names in (list(tasks), ["translation_en_to_fr"], ["summarization"]):
        config = {**json.loads(files["config.json"]), "task_specific_params": {name: tasks[name] for name in names}}
        shelf.hub.add("user/t5", files | {"config.json": json.dumps(config).encode()})
        found = described("user/t5", HubLink("auto"))
        translates = tuple(("en", name[-2:]) for name in names if name != "summarization")
        assert found.pairs == translates
        assert set(found.tasks) == {"translation" if name != "summarization" else name for name in names}
        assert ("summarization" in found.prefixes) == ("summarization" in names)
        assert [found.prefixes[f"en-{target}"] for _, target in translates] == [
            tasks[name]["prefix"] for name in names if name != "summarization"
        ]


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"n_positions": 256}, 256),
        ({"n_positions": None, "n_ctx": 128}, 128),
        ({"n_positions": None, "max_length": 20}, 512),  # how much generate() writes, not how much is read
        ({"n_positions": None, "max_position_embeddings": -1}, 512),
        ({"n_positions": None, "max_position_embeddings": "many"}, 512),
    ],
)
def test_context_window(shelf: Shelf, config: dict[str, Any], window: int) -> None:
    assert shelf.put("user/window", config).context_window == window


def test_a_chat_task_needs_a_card_that_says_so_or_none(shelf: Shelf) -> None:
    assert "conversational" not in shelf.put("user/base", card={"pipeline_tag": "text-classification"}).tasks


def test_weights_cannot_be_fewer_than_their_bytes(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory budget is asked with this number before anything is fetched."""
    from tests.stand_in_hub import descriptions

    monkeypatch.setattr(descriptions, "_parameters", lambda files: {"parameters": {"F32": 1}, "total": 1})
    found = shelf.put("user/liar")
    assert found.parameters >= len(shelf.gpt2["model.safetensors"]) // 8


# -- refusals --------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "images": ({"architectures": ["VisionEncoderDecoderModel"], "model_type": "vision-encoder-decoder"}, "VisionEnc"),
    "speech": (
        {"architectures": ["Speech2TextForConditionalGeneration"], "model_type": "speech_to_text"},
        "Speech2TextForConditionalGeneration, which no engine here runs",
    ),
    "pictures and text": (
        {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"},
        "LlavaForConditionalGeneration, which no engine here runs",
    ),
    "none": ({"architectures": None}, "names no architecture, which no engine here runs"),
    "empty": ({"architectures": []}, "names no architecture"),
    "many": ({"architectures": ["x" * 50] * 1000}, "which no engine here runs"),
    "unknown": (
        {"architectures": ["TomorrowForCausalLM"], "model_type": "tomorrow"},
        r"of the architecture 'tomorrow', which the installed transformers \(\d[\d.]+\) does not know; choose another",
    ),
    "untold": ({"model_type": ""}, "of the architecture '', which the installed transformers"),
    "code": (
        {"auto_map": {"AutoModel": "modeling.X"}},
        "asks to run code from a repository .*, which this suite never",
    ),
    "kernel": ({"attn_implementation": "user/kernel"}, "asks to run code from a repository .*kernel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_for_us(shelf: Shelf, case: str) -> None:
    config, words = REFUSED[case]
    with pytest.raises(SuiteError, match=words) as refused:
        shelf.put(f"user/refused-{case.replace(' ', '-')}", config)
    assert f"user/refused-{case.replace(' ', '-')}" in refused.value.message
    assert "hoose" in refused.value.message, "what to do instead"
    assert len(refused.value.message) < 700


MALFORMED: dict[str, dict[str, Any]] = {
    "architectures": {"architectures": 5},
    "model type": {"model_type": ["gpt2"]},
    "labels": {"architectures": ["GPT2ForSequenceClassification"], "id2label": ["a", "b"]},
    "tasks": {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "task_specific_params": [1, 2]},
    "task": {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "task_specific_params": "translation",
    },
    "name": {"architectures": [{"a": 1}]},
    "window": {"n_positions": [1]},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_values_of_another_kind(shelf: Shelf, case: str) -> None:
    """Described all the same, or refused in words: never a mistake of ours."""
    repo = f"user/malformed-{case.replace(' ', '-')}"
    said = shelf.said(repo, MALFORMED[case])
    assert not said or (repo in said and "another checkpoint" in said) or "Choose one of these" in said


HOSTILE_CARDS: dict[str, Any] = {
    "keywords": {"ignore_metadata_errors": True, "license": "mit"},
    "self": {"self": "mit"},
    "numbers": {"license": 7, "language": 7, "tags": 7, "pipeline_tag": 7, "library_name": 7},
    "lists": {"license": ["mit"], "language": [["en"]], "tags": [["x"]], "pipeline_tag": ["x"], "library_name": ["y"]},
    "no card": "---\n- a\n- b\n---\n",
    "broken": "---\n: : :\n\t---\n",
}


@pytest.mark.parametrize("case", HOSTILE_CARDS)
def test_cards_that_make_no_sense(shelf: Shelf, case: str) -> None:
    repo = f"user/card-{case.replace(' ', '-')}"
    said = shelf.said(repo, card=HOSTILE_CARDS[case])
    assert not said or (repo in said and "card" in said and "another checkpoint" in said)


def test_what_a_card_says_is_bounded(shelf: Shelf) -> None:
    found = shelf.put("user/long", card={"license": "x" * 10_000, "language": ["<b>", "e n", "en", "en-US"] * 50})
    assert len(found.licence) <= 60
    assert found.languages == ("en",)


def test_without_a_tokenizer(shelf: Shelf) -> None:
    names = ("config.json", "model.safetensors", "generation_config.json", "tokenizer_config.json")
    shelf.hub.add("user/no-tokenizer", {name: shelf.gpt2[name] for name in names})
    with pytest.raises(WeightsCorrupt, match=r"user/no-tokenizer has no tokenizer .* choose another checkpoint"):
        described("user/no-tokenizer", HubLink("auto"))


@pytest.mark.parametrize(
    "repo", ["", " ", "a/b/c", "../x", "user/../x", "https://a/b", "user/x@main", "-a", "user/<b>"]
)
def test_what_is_no_id(shelf: Shelf, repo: str) -> None:
    asked = len(shelf.hub.requests)
    with pytest.raises(UnknownCheckpoint, match="is not a repository id; those look like user/name"):
        described(repo, HubLink("auto"))
    assert len(shelf.hub.requests) == asked


@pytest.mark.parametrize("repo", ["user/a..b", "user/a--b", "user/" + "a" * 120])
def test_what_the_hubs_client_does_not_take_for_an_id(shelf: Shelf, repo: str) -> None:
    with pytest.raises(UnknownCheckpoint, match="is not a repository id"):
        described(repo, HubLink("auto"))


# -- a mistyped id ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("openai-comunity/gpt2", "openai-community/gpt2"),
        ("openai-community/gtp2", "openai-community/gpt2"),
        ("openai-community/GPT-2", "openai-community/gpt2"),
        ("google-t5/t5-smal", "google-t5/t5-small"),
        ("google/t5-small", "google-t5/t5-small"),
        ("FacebookAI/roberta-large-mnIi", "FacebookAI/roberta-large-mnli"),
        ("Helsinki-NLP/opus-mt-en-ess", "Helsinki-NLP/opus-mt-en-es"),
        ("helsinki-nlp/opus-mt-en_es", "Helsinki-NLP/opus-mt-en-es"),
        ("distilbert-base-cased-distilled-squad", "distilbert/distilbert-base-cased-distilled-squad"),
    ],
)
def test_the_one_that_was_meant(shelf: Shelf, typed: str, meant: str) -> None:
    with pytest.raises(UnknownCheckpoint) as refused:
        described(typed, HubLink("auto"))
    assert refused.value.message.startswith(f"the Hub has no repository {typed}, or it is private")
    assert refused.value.message.endswith(f". Did you mean {meant}?")


def test_nothing_is_suggested_where_nothing_is_near(shelf: Shelf) -> None:
    with pytest.raises(UnknownCheckpoint) as refused:
        described("nobody/nothing-of-the-kind", HubLink("auto"))
    assert "Did you mean" not in refused.value.message
    assert sum(request.path == "/api/models" for request in shelf.hub.requests) > 0


@pytest.mark.parametrize("fault", ["server_error", "rate_limit", "hang"])
def test_a_search_that_fails_leaves_the_error_as_it_is(
    shelf: Shelf, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.fetching import hub_models

    monkeypatch.setattr(hub_models, "PATIENCE", 0.2)
    getattr(shelf.hub.faults, fault)("/api/models?", times=20)
    with pytest.raises(UnknownCheckpoint, match="the Hub has no repository openai-comunity/gpt2") as refused:
        described("openai-comunity/gpt2", HubLink("auto"))
    assert "Did you mean" not in refused.value.message


# -- into the catalog ------------------------------------------------------------------------------


def test_what_was_added_can_be_chosen_and_what_failed_is_said(shelf: Shelf) -> None:
    catalog = Catalog.read()
    before = list(catalog)
    problems = result_of(added(("user/bart-order-mnli", "user/nowhere"), catalog, HubLink("auto")))
    assert [problem.partition(":")[0] for problem in problems] == ["user/nowhere"]
    assert [c.id for c in catalog if c not in before] == ["user/bart-order-mnli"]
    assert catalog.choose("user/bart-order-mnli", "zero-shot-classification").licence == "mit"


def test_adding_again_brings_the_newest_commit(shelf: Shelf) -> None:
    catalog = Catalog.read()
    old = shelf.put("user/moving").revision
    result_of(added(("user/moving",), catalog, HubLink("auto")))
    new = shelf.put("user/moving", {"n_head": 2}).revision
    assert old != new
    result_of(added(("user/moving",), catalog, HubLink("auto")))
    assert [c.revision for c in catalog if c.id == "user/moving"] == [new]


def test_what_the_catalog_knows_itself_stays(shelf: Shelf) -> None:
    """It knows DialoGPT's way of writing turns, which its repository does not say."""
    catalog = Catalog.read()
    before = list(catalog)
    names = ("microsoft/DialoGPT-medium", "google-t5/t5-small", "all-MiniLM-L6-v2")
    assert result_of(added(names, catalog, HubLink("auto"))) == []
    assert list(catalog) == before


def test_suite_models_are_added_in_the_background(
    shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    settings = Settings(models="user/wav2vec2-genres, user/nowhere", cache_dir=tmp_path)  # pyright: ignore[reportArgumentType] - as in the environment
    runtime = start(settings)
    try:
        begin_asking_the_hub(runtime)
        for thread in threading.enumerate():
            if thread.name in ("add-models", "ask-hub"):
                thread.join(30)
        assert runtime.catalog.choose("user/wav2vec2-genres", "audio-classification").kind == "audio-classifier"
        assert any("SUITE_MODELS: user/nowhere: the Hub has no repository" in message for message in caplog.messages)
    finally:
        runtime.lane.close()
        runtime.cache.close()


def test_nothing_is_asked_where_no_network_may_be_used(shelf: Shelf) -> None:
    asked = len(shelf.hub.requests)
    with pytest.raises(SuiteError, match="the profile is embedded"):
        described("openai-community/gpt2", HubLink("embedded"))
    assert len(shelf.hub.requests) == asked
