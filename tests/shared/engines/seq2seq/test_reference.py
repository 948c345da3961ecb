"""The encoder-decoder engines give what transformers' own `generate` gives, on tiny checkpoints of each kind.

The fast one and its reference alike; what only the fast one does is in `test_batched`.
"""

from __future__ import annotations

import copy
import json
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from shared.checkpoints.catalog import Checkpoint, Pair
from shared.engines.compute import RunHere, run_here
from shared.engines.pretrained.loading import load_pretrained
from shared.engines.protocols import Sampling
from shared.engines.seq2seq import batched as seq2seq_batched
from shared.engines.seq2seq import reference, translating
from shared.engines.seq2seq.batched_engine import BatchedSeq2Seq
from shared.engines.seq2seq.reference import TorchSeq2Seq, memory_bytes
from shared.engines.seq2seq.reference_decoding import Decoder, Sources
from shared.engines.seq2seq.rules import Rules, translation_task
from shared.engines.seq2seq.translating import target_limit
from shared.errors import Cancelled, InvalidInput, SuiteError, UnknownCheckpoint, WeightsCorrupt
from shared.settings import Settings
from tests.shared.engines.steps import Steps
from tests.tiny_checkpoints import seq2seq as tiny

T = TypeVar("T")

KINDS = ["t5", "flan_t5", "marian", "m2m100", "small100"]
PAIR = ("en", "fr")
SENTENCES = [*tiny.ENGLISH[:6], "Yes.", "A dog, a cat, and " * 6 + "a bird."]
TO_FRENCH = "translate English to French: "
ABOUT: dict[str, dict[str, Any]] = {
    "t5": {"pairs": [PAIR, ("en", "de")], "prefixes": {"en-fr": TO_FRENCH, "en-de": "translate English to German: "}},
    "flan_t5": {"pairs": [PAIR], "prefixes": {"en-fr": TO_FRENCH, "summarization": "summarize: "}},
    "marian": {"pairs": [PAIR]},
    "m2m100": {"any_pair": True, "languages": ["en", "fr", "hi", "zh"]},
    "small100": {"any_pair": True, "languages": ["en", "fr", "hi", "zh"]},
}


def about(kind: str, **changes: Any) -> Checkpoint:
    """What a catalog would say of a tiny checkpoint."""
    entry = {
        "id": f"tiny/{kind}",
        "kind": "seq2seq",
        "engine": "seq2seq.reference",
        "profile": "hub",
        "tasks": ["translation"],
        "languages": ["en", "fr"],
        "licence": "Apache-2.0",
        "authors": "nobody",
        "parameters": 100_000,
        "context_window": 512,
        "revision": "1",
        "limits": "Its weights are random.",
        "source": {"package": "none==1", "sha256": "0" * 64, "size": 1, "files": {}},
    }
    return Checkpoint.model_validate(entry | ABOUT[kind] | changes)


ENGINES = {"reference": reference, "batched": seq2seq_batched}


def read(kind: str, folder: Path, form: str = "reference", **changes: Any) -> Any:
    """The engine of that form, and with it transformers' own model."""
    own = Settings.model_validate({"cache_dir": folder.parent / "cache"})
    checkpoint, progress = about(kind, **changes), lambda what, done, total: None
    engine: Any = ENGINES[form].load(checkpoint, folder, own, progress)
    if form == "batched":
        assert engine.name.startswith("compiled-")
        engine.model = load_pretrained("AutoModelForSeq2SeqLM", checkpoint, folder, progress)
    return engine


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("seq2seq")
    for kind in KINDS:
        getattr(tiny, kind)(root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module", params=ENGINES)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path], form: str) -> dict[str, Any]:
    return {kind: read(kind, folders[kind], form) for kind in KINDS}


@pytest.fixture(scope="module")
def references(folders: dict[str, Path]) -> dict[str, TorchSeq2Seq]:
    return {kind: read(kind, folders[kind]) for kind in KINDS}


@pytest.fixture(autouse=True)
def short_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights seldom end: not so many tokens as real ones may write."""
    monkeypatch.setattr(translating, "MAX_LENGTH_FACTOR", 0.4)
    monkeypatch.setattr(translating, "LENGTH_MARGIN", 6)


@pytest.fixture(params=KINDS)
def engine(engines: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    return engines[request.param]


def theirs(engine: Any, source: Sequence[int], limit: int, **changes: Any) -> list[int]:
    """New token ids of transformers' own `generate`, without what comes after the end token.

    Both forms of an engine are held against the same, which is computed once; but for what is drawn.
    """
    model, ids, options = engine.model, torch.tensor([list(source)]), {"do_sample": False, "num_beams": 1, **changes}
    if not options["num_beams"]:
        del options["num_beams"]  # as the checkpoint prefers
    asked = (model.name_or_path, model.generation_config.to_json_string(), tuple(source), limit, str(options))
    if options["do_sample"] or asked not in GENERATED:
        with torch.inference_mode():
            found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, **options)
        GENERATED[asked] = found[0, 1:].tolist()
    return GENERATED[asked]


GENERATED: dict[tuple[Any, ...], list[int]] = {}
"""What `theirs` has computed."""


def without_end(engine: Any, tokens: Sequence[int]) -> list[int]:
    return [token for token in tokens if token not in engine.rules.ends]


def ours(engine: Any, source: Sequence[int], sampling: Sampling, compute: Any = run_here) -> list[int]:
    return [token.id for token in engine.generate(source, sampling, compute)]


def first(engine: Any, pair: Pair = PAIR) -> dict[str, Any]:
    """What `generate` must be told for a pair of languages."""
    token = engine.tokenizer.first_token(pair)
    return {} if token is None else {"forced_bos_token_id": token}


def said_of(engine: Any, task: str, num_beams: int) -> dict[str, Any]:
    """What `generate` must be told for a task of config.json; `num_beams` 0 leaves them to the checkpoint too."""
    said = (getattr(engine.model.config, "task_specific_params", None) or {}).get(task, {})
    told = {"num_beams": 0, **said} | ({"num_beams": num_beams} if num_beams else {})
    return {name: value for name, value in told.items() if name not in ("prefix", "max_length")}


def as_given(engine: Any, sentence: str, pair: Pair = PAIR) -> list[int]:
    """The source tokens of a sentence to translate."""
    return engine.tokenizer.encode(engine.checkpoint.prefixes.get("-".join(pair), "") + sentence, pair)


# -- as transformers does ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_tiny_checkpoints_say_different_things(engine: Any) -> None:
    """And some end by themselves, some do not; otherwise the agreement below would say little."""
    found = [tuple(ours(engine, as_given(engine, text), Sampling(max_new_tokens=20))) for text in tiny.ENGLISH]
    assert len(set(found)) > len(found) / 2
    assert sum(len(set(tokens)) > 2 for tokens in found) > len(found) / 3
    assert {len(tokens) == 20 for tokens in found} >= {False}


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_what_transformers_generates(engine: Any, penalty: float) -> None:
    for text in SENTENCES:
        source = as_given(engine, text)
        found = ours(engine, source, Sampling(max_new_tokens=16, repetition_penalty=penalty))
        assert found == without_end(engine, theirs(engine, source, 16, repetition_penalty=penalty))


@pytest.mark.parametrize("num_beams", [1, 2, 4])
def test_beams_are_what_transformers_searches(engine: Any, num_beams: int) -> None:
    for text in SENTENCES:
        source = as_given(engine, text)
        expected = without_end(engine, theirs(engine, source, 14, num_beams=num_beams))
        assert engine.beam_search(source, 14, num_beams) == expected


@pytest.mark.parametrize("num_beams", [0, 1, 3])
def test_translations_in_batches_are_what_transformers_generates_one_by_one(engine: Any, num_beams: int) -> None:
    """Neighbours, padding and leaving early change nothing. What config.json says of the pair counts."""
    found = engine.translate(SENTENCES, num_beams, pair=PAIR)
    for text, translated in zip(SENTENCES, found, strict=True):
        source = as_given(engine, text)
        said = said_of(engine, translation_task(PAIR), num_beams)
        tokens = theirs(engine, source, target_limit(len(source)), **first(engine), **said)
        assert translated.text == engine.detokenize(tokens)
        assert translated.new_tokens == len(tokens)
        assert translated.input_tokens == len(source)
    assert engine.translate(SENTENCES[::-1], num_beams, pair=PAIR)[0].text == found[-1].text


@pytest.mark.parametrize("sampling", [Sampling(24, True), Sampling(24, True, 1.7, 20, 0.9, 1.2)])
def test_sampling_is_what_transformers_draws(engine: Any, sampling: Sampling) -> None:
    source = as_given(engine, SENTENCES[0])
    drawn = []
    for seed in (1, 2, 3):
        asked = replace(sampling, seed=seed)
        found = ours(engine, source, asked)
        assert found == ours(engine, source, asked)
        torch.manual_seed(seed)
        expected = theirs(
            engine,
            source,
            24,
            do_sample=True,
            temperature=asked.temperature,
            top_k=asked.top_k,
            top_p=asked.top_p,
            repetition_penalty=asked.repetition_penalty,
        )
        assert found == without_end(engine, expected)
        drawn.append(tuple(found))
    assert len(set(drawn)) > 1


# -- what a generation config asks for ---------------------------------------------------------------


def asking(engine: Any, **options: Any) -> Any:
    """The same weights with another generation config."""
    model = copy.copy(engine.model)
    model.generation_config = copy.deepcopy(engine.model.generation_config)
    for name, value in options.items():
        assert hasattr(model.generation_config, name)
        setattr(model.generation_config, name, value)
    if isinstance(engine, TorchSeq2Seq):
        return TorchSeq2Seq(model, engine.tokenizer, engine.checkpoint)
    rules = Rules(model.generation_config, model.config)
    other: Any = BatchedSeq2Seq(engine.writer.network, engine.tokenizer, rules, engine.checkpoint)
    other.model = model
    return other


OPTIONS: list[dict[str, Any]] = [
    {"forced_bos_token_id": 7},
    {"no_repeat_ngram_size": 2},
    {"min_length": 9},
    {"bad_words_ids": "said"},
    {"forced_eos_token_id": "end"},
    {"renormalize_logits": True, "no_repeat_ngram_size": 1},
]
FOR_BEAMS: list[dict[str, Any]] = [
    {"length_penalty": 2.0},
    {"length_penalty": 0.0},
    {"length_penalty": -1.0},
    {"early_stopping": True},
    {"early_stopping": False},
]


def for_this(engine: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options with token ids of this checkpoint: its end, and what it says by itself."""
    said = ours(engine, as_given(engine, SENTENCES[0]), Sampling(max_new_tokens=12))
    ids = {"end": engine.rules.ends[0], "said": [[said[0]], said[1:3]]}
    return {name: ids[value] if isinstance(value, str) else value for name, value in options.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["t5", "small100"])
def test_the_generation_config_is_obeyed(engines: dict[str, Any], kind: str, options: dict[str, Any]) -> None:
    plain = asking(engines[kind], early_stopping=False)
    engine = asking(plain, **for_this(plain, options))
    changed = 0
    for text in SENTENCES[:3]:
        source = as_given(engine, text)
        found = ours(engine, source, Sampling(max_new_tokens=12))
        assert found == without_end(engine, theirs(engine, source, 12))
        beams = engine.beam_search(source, 12, 3)
        assert beams == without_end(engine, theirs(engine, source, 12, num_beams=3))
        changed += found != ours(plain, source, Sampling(max_new_tokens=12)) or beams != plain.beam_search(
            source, 12, 3
        )
    assert changed


@pytest.mark.parametrize("options", FOR_BEAMS, ids=str)
def test_length_penalty_and_early_stopping_are_obeyed(engine: Any, options: dict[str, Any]) -> None:
    asked = asking(engine, **options)
    for text in SENTENCES[:3]:
        source = as_given(asked, text)
        assert asked.beam_search(source, 12, 3) == without_end(asked, theirs(asked, source, 12, num_beams=3))


@pytest.mark.slow
def test_they_do_change_what_beams_find(engines: dict[str, Any]) -> None:
    """Otherwise the agreement above would say nothing of them."""
    found: dict[str, list[list[int]]] = {}
    for options in FOR_BEAMS:
        asked = [asking(engines[kind], **{"early_stopping": False, **options}) for kind in KINDS]
        found[str(options)] = [one.beam_search(as_given(one, text), 12, 3) for one in asked for text in SENTENCES[:5]]
    plain = found.pop(str({"early_stopping": False}))
    assert plain not in found.values()


def test_every_source_has_its_own_limit(engines: dict[str, Any]) -> None:
    """And Marian's forced end comes at it, whatever the neighbours' limits are."""
    engine = engines["marian"]
    sources = [engine.tokenize(text) for text in SENTENCES]
    limits = [1 + 3 * i % 11 for i in range(len(sources))]
    for num_beams in (1, 3):
        together = engine.best_outputs(Sources(sources, limits), num_beams, run_here)
        for source, limit, output in zip(sources, limits, together, strict=True):
            assert output.tokens == theirs(engine, source, limit, num_beams=num_beams)
            assert output.tokens[-1] in engine.rules.ends


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 1.2}, {"encoder_no_repeat_ngram_size": 3}, {"early_stopping": "never"}, {"num_beams": 999}],
    ids=str,
)
def test_what_is_not_done_is_refused_by_name(engines: dict[str, Any], options: dict[str, Any]) -> None:
    with pytest.raises(SuiteError, match=next(iter(options))):
        asking(engines["t5"], **options)


def test_settings_of_sampling_and_length_are_the_requests(engines: dict[str, Any]) -> None:
    engine = engines["t5"]
    other = asking(engine, max_length=3, num_beams=5, do_sample=True, temperature=0.1, top_k=1, top_p=0.1)
    source, sampling = as_given(engine, SENTENCES[0]), Sampling(20, True, seed=5)
    assert ours(other, source, sampling) == ours(engine, source, sampling)


# -- what it says of itself --------------------------------------------------------------------------


def test_beams_are_the_checkpoints_own_where_nobody_names_them(engines: dict[str, Any]) -> None:
    """Of T5's kind its config.json says them, and for its tasks alone."""
    assert {kind: engines[kind].num_beams for kind in KINDS} == {
        "t5": 1,
        "flan_t5": 1,
        "marian": 4,
        "m2m100": 5,
        "small100": 5,
    }
    tasks = ("summarization", "translation_en_to_fr", "poetry")
    assert [engines["t5"].for_task(task).num_beams for task in tasks] == [4, 4, 1]
    for kind in KINDS:
        assert engines[kind].translate(SENTENCES, 0, pair=PAIR) != engines[kind].translate(SENTENCES, 1, pair=PAIR)


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("limit", [33, 12])
@pytest.mark.parametrize("num_beams", [0, 1, 2])
@pytest.mark.parametrize("kind", ["t5", "flan_t5"])
def test_summaries_are_written_as_its_config_says_of_them(
    engines: dict[str, Any], kind: str, num_beams: int, limit: int
) -> None:
    """No shorter than `min_length`, even of a short source; but where the request allows less, that counts."""
    engine, task = engines[kind], engines[kind].for_task("summarization")
    shortest, beams, changed = 30, num_beams or task.num_beams, 0
    for text in SENTENCES[:3]:
        source = engine.tokenize("summarize: " + text)
        expected = without_end(engine, theirs(engine, source, limit, **said_of(engine, "summarization", num_beams)))
        found = task.beam_search(source, limit, beams)
        assert found == expected
        # The token that starts the decoder is counted too, as transformers does.
        assert min(shortest - 1, limit) <= len(found) <= limit
        if beams == 1:
            assert ours(task, source, Sampling(max_new_tokens=limit)) == expected
        changed += found != engine.beam_search(source, limit, beams)
    assert changed


def test_older_checkpoints_say_it_in_config_json(folders: dict[str, Path], form: str, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["marian"], tmp_path / "marian")
    config, said = (json.loads((folder / name).read_text()) for name in ("config.json", "generation_config.json"))
    (folder / "generation_config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | said | {"num_beams": 3}))
    engine = read("marian", folder, form)
    for text, found in zip(SENTENCES, engine.translate(SENTENCES, 0, pair=PAIR), strict=True):
        source = as_given(engine, text)
        limit = target_limit(len(source))
        tokens = theirs(engine, source, limit, num_beams=0)
        assert found.text == engine.detokenize(tokens)
        assert tokens == theirs(engine, source, limit, num_beams=3)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"repetition_penalty": 2.5}, "asks for what this engine does not do .repetition_penalty"),
        ({"num_beams": 999}, "asks for what this engine does not do .num_beams"),
        ({"num_beams": "some"}, "asks for what this engine does not do .num_beams"),
        ({"min_length": -3}, "says of summarization makes no sense"),
        ({"length_penalty": "long"}, "says of summarization makes no sense"),
        ({"early_stopping": []}, "says of summarization makes no sense"),
    ],
)
def test_what_is_not_done_for_a_task_is_refused_when_it_is_asked(
    references: dict[str, TorchSeq2Seq], said: dict[str, Any], words: str
) -> None:
    generation = references["t5"].model.generation_config
    rules = Rules(generation, SimpleNamespace(task_specific_params={"summarization": said}))
    assert rules.for_task("translation_en_to_fr") is rules
    with pytest.raises(SuiteError, match=words) as refused:
        rules.for_task("summarization")
    assert refused.value.field == "model"
    assert "another checkpoint" in refused.value.message


@pytest.mark.parametrize("tasks", [None, [1, 2], "summarization", {"summarization": 5}])
def test_tasks_of_another_kind_say_nothing(references: dict[str, TorchSeq2Seq], tasks: Any) -> None:
    rules = Rules(references["t5"].model.generation_config, SimpleNamespace(task_specific_params=tasks))
    assert rules.for_task("summarization") is rules


# -- probabilities and steps -------------------------------------------------------------------------


def log_probabilities(engine: Any, source: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Of each token after those before it, by one pass over all of them."""
    before = torch.tensor([[engine.rules.start, *tokens[:-1]]])
    with torch.inference_mode():
        logits = engine.model(input_ids=torch.tensor([list(source)]), decoder_input_ids=before).logits[0]
        return logits.log_softmax(-1)[range(len(tokens)), list(tokens)].tolist()


def test_probabilities_are_the_models_own(engine: Any) -> None:
    source = as_given(engine, SENTENCES[1])
    for sampling in (Sampling(12), Sampling(12, True, 2.0, seed=3)):
        tokens = list(engine.generate(source, sampling))
        assert tokens
        expected = torch.tensor(log_probabilities(engine, source, [token.id for token in tokens])).exp()
        torch.testing.assert_close(torch.tensor([token.probability for token in tokens]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", ["t5", "flan_t5", "small100"])
def test_log_probability_is_that_of_the_text(engines: dict[str, Any], kind: str, num_beams: int) -> None:
    for penalty in (1.0, 2.0):
        engine = asking(engines[kind], length_penalty=penalty)
        sources = [as_given(engine, text) for text in SENTENCES[:5]]
        for source, output in zip(
            sources, engine.best_outputs(Sources(sources, [12] * 5), num_beams, run_here), strict=True
        ):
            expected = sum(log_probabilities(engine, source, output.tokens))
            assert output.log_probability == pytest.approx(expected, abs=1e-3)
        found = engine.translate(SENTENCES[:5], num_beams, pair=PAIR)
        assert all(translated.log_probability < 0 for translated in found)


def test_a_forced_language_counts_as_certain(engines: dict[str, Any]) -> None:
    engine = engines["m2m100"]
    source = as_given(engine, SENTENCES[0])
    (found,) = engine.translate(SENTENCES[:1], pair=PAIR)
    limit = target_limit(len(source))
    tokens = theirs(engine, source, limit, **first(engine))
    assert tokens[0] == engine.tokenizer.first_token(PAIR)
    expected = sum(log_probabilities(engine, source, tokens)[1:]) / len(tokens)
    assert found.log_probability == pytest.approx(expected, abs=1e-4)


def test_beams_find_likelier_translations(engine: Any) -> None:
    sources = [as_given(engine, text) for text in SENTENCES]
    greedy, beams = (
        sum(
            out.log_probability / len(out.tokens)
            for out in engine.best_outputs(Sources(sources, [12] * len(sources)), n, run_here)
        )
        for n in (1, 4)
    )
    assert beams > greedy


def test_one_step_for_the_encoder_and_one_a_token(engine: Any) -> None:
    source, steps = as_given(engine, SENTENCES[4]), Steps()
    found = ours(engine, source, Sampling(max_new_tokens=9), steps)
    ended = theirs(engine, source, 9)[-1] in engine.rules.ends
    # The fast engine reads the source in the step of the first token.
    reading = isinstance(engine, TorchSeq2Seq)
    assert steps.taken == reading + len(found) + ended
    steps = Steps()
    (translated,) = engine.translate(SENTENCES[4:5], compute=steps, pair=PAIR)
    assert steps.taken == reading + translated.new_tokens


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_cancelled_request_stops_at_its_next_step(engines: dict[str, Any], after: int) -> None:
    engine = engines["t5"]
    source = as_given(engine, SENTENCES[2])
    calls: list[Callable[[Any], Any]] = [
        lambda compute: ours(engine, source, Sampling(), compute),
        lambda compute: engine.beam_search(source, 20, 3, compute),
        lambda compute: engine.translate(SENTENCES, 1, compute, pair=PAIR),
        lambda compute: engine.translate(SENTENCES, 2, compute, pair=PAIR),
    ]
    for call in calls:
        steps = Steps(stop_after=after)
        with pytest.raises(Cancelled):
            call(steps)
        assert steps.taken == after


def test_steps_may_run_in_another_thread(engine: Any) -> None:
    """As they do on the compute lane; inference mode is a matter of the thread."""

    def elsewhere(step: Callable[[], T], /) -> T:
        results: list[T] = []
        thread = threading.Thread(target=lambda: results.append(step()))
        thread.start()
        thread.join()
        return results[0]

    source = as_given(engine, SENTENCES[0])
    assert ours(engine, source, Sampling(5), RunHere(elsewhere)) == ours(engine, source, Sampling(5))
    for num_beams in (1, 2):
        there = engine.translate(SENTENCES[:3], num_beams, RunHere(elsewhere), pair=PAIR)
        here = engine.translate(SENTENCES[:3], num_beams, pair=PAIR)
        assert [(one.text, one.new_tokens) for one in there] == [(one.text, one.new_tokens) for one in here]
        # Another thread may have another number of threads to compute with, and sums in another order.
        expected = [one.log_probability for one in here]
        assert [one.log_probability for one in there] == pytest.approx(expected, abs=1e-4)


def test_sources_are_read_once_and_those_that_ended_cost_nothing(
    references: dict[str, TorchSeq2Seq], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = references["flan_t5"]
    encoded, lines = [], []
    logits = Decoder.logits

    def counted(self: Decoder, *arguments: Any) -> torch.Tensor:
        scores = logits(self, *arguments)
        lines.append(len(scores))
        return scores

    monkeypatch.setattr(Decoder, "logits", counted)
    watch = engine.model.get_encoder().register_forward_hook(lambda module, given, output: encoded.append(1))
    found = engine.translate(SENTENCES, pair=PAIR)
    watch.remove()
    assert sum(lines) == sum(translated.new_tokens for translated in found)
    assert sum(encoded) == len(list(reference.batches([t.input_tokens for t in found], 32, reference.BATCH_TOKENS)))
    assert len(set(lines)) > 3


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_bounded_batches_change_nothing(
    references: dict[str, TorchSeq2Seq], monkeypatch: pytest.MonkeyPatch, kind: str, num_beams: int
) -> None:
    engine = references[kind]
    expected = engine.translate(SENTENCES, num_beams, pair=PAIR)
    monkeypatch.setattr(reference, "BATCH_TOKENS", 100)
    monkeypatch.setattr(reference, "BATCH_LINES", 2)
    for one, other in zip(engine.translate(SENTENCES, num_beams, pair=PAIR), expected, strict=True):
        assert (one.text, one.new_tokens) == (other.text, other.new_tokens)
        assert one.log_probability == pytest.approx(other.log_probability, rel=1e-2)


# -- text and tokens ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("kind", ["t5", "flan_t5", "marian"])
def test_tokens_are_those_of_the_checkpoints_tokenizer(
    engines: dict[str, Any], folders: dict[str, Path], kind: str
) -> None:
    engine, tokenizer = engines[kind], AutoTokenizer.from_pretrained(folders[kind])
    for text in [*SENTENCES, "", "  two  spaces ", "ﬁne \u00a0 ½", "日本 🙂 x", *tiny.OTHERS]:
        assert engine.tokenize(text) == tokenizer(text).input_ids
        assert engine.tokenize(text)[-1] == tokenizer.eos_token_id
        shown = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
        assert engine.detokenize(engine.tokenize(text)) == shown


def test_a_tokenizer_that_truncates_is_kept_from_it(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["t5"], tmp_path / "t5")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    text = " ".join(SENTENCES)
    assert len(tokenizer.encode(text).ids) == 9
    engine = read("t5", folder)
    assert engine.tokenize(text) == read("t5", folders["t5"]).tokenize(text)
    assert len(engine.tokenize(text)) > 100


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian_writes_with_the_targets_pieces(engines: dict[str, Any], folders: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["marian"])
    for text in tiny.FRENCH:
        assert engines["marian"].detokenize(tokenizer(text_target=text).input_ids) == text
    assert engines["marian"].detokenize([*tokenizer(text_target="Oui").input_ids], special_tokens=True).endswith("</s>")


def test_pieces_of_text_are_the_text(engine: Any) -> None:
    for text in SENTENCES:
        tokens = list(engine.generate(as_given(engine, text), Sampling(24, True, seed=len(text))))
        assert "".join(token.text for token in tokens) == engine.detokenize([token.id for token in tokens])


def test_a_source_must_fit(engine: Any) -> None:
    for source in ([5] * 513, []):
        with pytest.raises(InvalidInput) as error:
            next(engine.generate(source, Sampling()))
        assert error.value.field == "text"
        with pytest.raises(InvalidInput):
            engine.beam_search(source, 5, 2)
    assert len(ours(engine, [5] * 512, Sampling(max_new_tokens=2))) <= 2


def test_no_more_is_written_than_the_window(folders: dict[str, Path], form: str) -> None:
    engine = read("marian", folders["marian"], form, context_window=16)
    for text in SENTENCES[:4]:
        assert len(ours(engine, engine.tokenize(text)[-16:], Sampling(max_new_tokens=100))) <= 16


# -- translation -------------------------------------------------------------------------------------


def test_prefixes_reach_the_encoder(engines: dict[str, Any]) -> None:
    engine = engines["t5"]
    for pair, prefix in ((PAIR, TO_FRENCH), (("en", "de"), "translate English to German: ")):
        (found,) = engine.translate(["Life is like  a box of chocolates."], pair=pair)
        source = engine.tokenize(prefix + "Life is like  a box of chocolates.")
        limit = target_limit(len(source))
        assert found.text == engine.detokenize(theirs(engine, source, limit))
        assert found.input_tokens == len(source)
    french, german = (engine.translate(SENTENCES, pair=pair) for pair in (PAIR, ("en", "de")))
    assert [one.text for one in french] != [one.text for one in german]


@pytest.mark.parametrize("kind", ["m2m100", "small100"])
def test_the_language_asked_for_reaches_the_model(engines: dict[str, Any], kind: str) -> None:
    engine = engines[kind]
    pairs = [("en", "fr"), ("en", "hi"), ("fr", "hi")]
    found = [[one.text for one in engine.translate(SENTENCES, pair=pair)] for pair in pairs]
    assert found[0] != found[1]
    # M2M100 is told both languages, small100 the target alone.
    assert (found[1] == found[2]) == (kind == "small100")


def test_pairs_that_it_does_not_translate_are_refused(engine: Any) -> None:
    for pair in (("fr", "xx"), ("fr", "fr"), ("ro", "en")):
        with pytest.raises(UnknownCheckpoint, match=f"{engine.checkpoint.id} does not translate from") as error:
            engine.translate(["Yes."], pair=pair)
        assert error.value.field == "tgt_lang"


def test_the_pair_may_be_left_out_where_there_is_one(engines: dict[str, Any]) -> None:
    for kind in ("marian", "flan_t5"):
        assert engines[kind].translate(SENTENCES) == engines[kind].translate(SENTENCES, pair=PAIR)
    for kind, told in (("t5", "en to fr, en to de"), ("small100", "any two of en, fr, hi, zh")):
        with pytest.raises(UnknownCheckpoint, match=told) as error:
            engines[kind].translate(["Yes."])
        assert error.value.field == "tgt_lang"


def test_what_does_not_translate_says_so(folders: dict[str, Path]) -> None:
    engine = read("flan_t5", folders["flan_t5"], pairs=[])
    with pytest.raises(UnknownCheckpoint, match="does not translate"):
        engine.translate(["Yes."])


def test_no_sentences(engine: Any) -> None:
    assert engine.translate([], pair=PAIR) == []


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "...", "🍕 🍕", "ქართული ენა"])
def test_what_cannot_be_read_stays_as_it_is(engine: Any, text: str) -> None:
    steps = Steps()
    (found,) = engine.translate([text], compute=steps, pair=PAIR)
    assert (found.text, found.input_tokens, found.new_tokens, found.log_probability) == (text.strip(), 0, 0, 0.0)
    assert steps.taken == 0
    around = engine.translate([SENTENCES[0], text, SENTENCES[1]], pair=PAIR)
    assert [around[0], around[2]] == engine.translate(SENTENCES[:2], pair=PAIR)


def test_a_text_with_something_unreadable_is_translated(engine: Any) -> None:
    (found,) = engine.translate(["The 🍕 house is ქართული big."], pair=PAIR)
    source = as_given(engine, "The 🍕 house is ქართული big.")
    assert found.text == engine.detokenize(theirs(engine, source, target_limit(len(source)), **first(engine)))


@pytest.mark.parametrize("kind", KINDS)
def test_long_sentences_are_translated_in_parts(
    folders: dict[str, Path], kind: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = 48
    engine = read(kind, folders[kind], form, context_window=window)
    read_by_encoder: list[list[int]] = []
    best_outputs = engine.best_outputs

    def watched(sources: Sources, *arguments: Any) -> Any:
        read_by_encoder.extend(map(list, sources.ids))
        return best_outputs(sources, *arguments)

    monkeypatch.setattr(engine, "best_outputs", watched)
    long = " ".join(tiny.ENGLISH[:8]) + " " + "chocolates" * 30
    (found,) = engine.translate([long], pair=PAIR)
    assert len(read_by_encoder) > 3
    assert max(map(len, read_by_encoder)) <= window
    frame = len(as_given(engine, ""))
    # No token is lost, but a word cut in the middle is cut into other tokens.
    whole = len(engine.tokenizer.words(" ".join(tiny.ENGLISH[:8])))
    assert sum(len(source) - frame for source in read_by_encoder) >= whole
    assert found.input_tokens == sum(map(len, read_by_encoder))


# -- loading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_float32_and_counted_once(references: dict[str, TorchSeq2Seq], kind: str) -> None:
    engine = references[kind]
    assert engine.name == "torch-fp32"
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.float32}
    assert engine.nbytes == 4 * engine.model.num_parameters()
    assert memory_bytes(engine.checkpoint) == 400_000
    assert not engine.model.training


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("t5", "tokenizer.json"),
        ("marian", "target.spm"),
        ("marian", "vocab.json"),
        ("m2m100", "vocab.json"),
        ("small100", "sentencepiece.bpe.model"),
    ],
)
def test_a_missing_tokenizer_is_named(
    folders: dict[str, Path], tmp_path: Path, kind: str, file: str, form: str
) -> None:
    """transformers would make up an empty one for T5 and answer with nonsense."""
    folder = shutil.copytree(folders[kind], tmp_path / kind)
    (folder / file).unlink()
    with pytest.raises(WeightsCorrupt, match=rf"tiny/{kind}.* lacks {file}"):
        read(kind, folder, form)


def test_loading_warns_of_nothing(folders: dict[str, Path]) -> None:
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        read("marian", folders["marian"])
    assert not [str(one.message) for one in raised if "sacremoses" in str(one.message)]
