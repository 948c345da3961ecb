"""Every Space's folder as it is on the Hub: alone in a clean process, called from outside; and on ZeroGPU."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from shared.checkpoints.catalog import Catalog
from shared.fetch import unmatched
from shared.publishing.assemble import SUITE, Assembled, assemble
from shared.publishing.requirements import IMPORT_NAMES, package_name, requirement_lines
from shared.serving.space import ROOT
from shared.settings import Settings
from shared.yaml_text import read_yaml
from tests.course_hub import push_all, tiny
from tests.served import Forker, Served, free_port, served, with_compiled_kernels
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to

pytestmark = pytest.mark.slow

SPACES = sorted(file.parent.name for file in (ROOT / "spaces").glob("*/examples.yaml"))
NAMES = [SUITE, *SPACES]
"""What takes longest comes first, since two are tried out at a time."""

MARIAN, SMALL100 = "Helsinki-NLP/opus-mt-en-es", "alirezamsh/small100"
HUB_DEFAULTS = {
    "zero_shot": "FacebookAI/roberta-large-mnli",
    "few_shot": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "sentiment": "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
    "summarize": "google/flan-t5-base",
    "translate": MARIAN,
    "generate": "openai-community/gpt2",
    "chat": "microsoft/DialoGPT-medium",
    "next_token": "openai-community/gpt2",
    "fill_mask": "google-bert/bert-base-uncased",
    "answer_question": "distilbert/distilbert-base-cased-distilled-squad",
    "audio_genre": "musicnn",
}
LIKE = {
    "google/flan-t5-base": "google/flan-t5-small",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
"""Defaults that no tiny checkpoint is made for, and whose is pushed in their place."""
PATIENCE = 60


def first_examples(folder: Path) -> dict[str, dict[str, Any]]:
    """Endpoint → inputs of its first example, short of breath, and between the languages that are the default."""
    found = {}
    for file in sorted(folder.glob("*/examples.yaml")):
        for endpoint, examples in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            inputs = {name: value for name, value in examples[0]["inputs"].items() if not name.endswith("_lang")}
            for name, value in inputs.items():
                if str(value).startswith("./"):
                    inputs[name] = handle_file(str(file.parent / value))
            if "max_new_tokens" in inputs:
                inputs["max_new_tokens"] = min(inputs["max_new_tokens"], 8)
            found[endpoint] = inputs
    return found


def said_otherwise(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs but for the end of the text, so that the answer is not a stored one; a recording never is."""
    if not any(isinstance(value, str) for value in inputs.values()):
        return inputs
    text = max((name for name, value in inputs.items() if isinstance(value, str)), key=lambda name: len(inputs[name]))
    return {**inputs, text: f"{inputs[text]} Today."}


# -- alone -----------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """What was seen of one folder, in the profile that it sets; the suite's folder was told to be embedded."""

    named: set[str]
    """Endpoints that have an example."""
    served: set[str]
    profile: str
    opens_with: dict[str, Any]
    """Values of the page's fields, by their label."""
    fetched_to_warm: set[str] = field(default_factory=set)
    """Translators that were fetched before anybody asked, examples computed."""
    answers: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    same_visitor_again: str = ""
    another_visitor: tuple[Any, ...] = ()
    fetched: set[str] = field(default_factory=set)
    """Translators, in the end."""
    log: str = ""


@dataclass(frozen=True)
class Bench:
    """What the folders are tried out with."""

    folder: Path
    forker: Forker
    commits: dict[str, str]
    """Of the repositories on the stand-in Hub."""

    def fetched_translators(self) -> set[str]:
        there = self.folder / "hf-home" / "hub"
        return {repo for repo in (MARIAN, SMALL100) if (there / f"models--{repo.replace('/', '--')}").exists()}


def not_required(requirements: str) -> list[str]:
    """Packages of ours that this requirements.txt leaves out, by the names they are imported by."""
    listed = {package_name(line) for line in requirement_lines(requirements)}
    ours = {package_name(line) for line in requirement_lines((ROOT / "requirements.txt").read_text(encoding="utf-8"))}
    return [IMPORT_NAMES.get(name, name.replace("-", "_")) for name in sorted(ours - listed)]


def pin_in(folder: Path, commits: dict[str, str]) -> None:
    """Has the folder's catalog mean the tiny checkpoints."""
    file = folder / "shared" / "checkpoints" / "catalog.yaml"
    catalog = read_yaml(file.read_text(encoding="utf-8"))
    for entry in catalog["checkpoints"]:
        if entry["id"] in commits:
            entry.update(tiny(commits[entry["id"]]))
    file.write_text(json.dumps(catalog), encoding="utf-8")  # which is YAML too


def with_unmatched_weights(cache: Path) -> Path:
    """A cache folder that holds what a Space in the hub profile fetches from packages, and nothing else."""
    (cache / "weights").mkdir(parents=True)
    for checkpoint in unmatched(Catalog.read()):
        (cache / "weights" / checkpoint.folder).symlink_to(Settings().weights_dir / checkpoint.folder)
    return cache


def page_fields(url: str) -> dict[str, Any]:
    components = [component["props"] for component in httpx.get(f"{url}config").json()["components"]]
    return {props["label"]: props.get("value") for props in reversed(components) if props.get("label")}


def try_out(name: str, assembled: Assembled, bench: Bench) -> Trial:
    """Starts the folder as a Space is started."""
    folder = bench.folder / name
    assembled.write(folder)
    with_compiled_kernels(folder)
    pin_in(folder, bench.commits)
    elsewhere = bench.folder / f"{name}-elsewhere"
    elsewhere.mkdir()
    environment = {
        "SYSTEM": "spaces",
        "SPACE_ID": f"somebody/{name}",
        "GRADIO_SERVER_PORT": str(free_port()),
        "SUITE_WARM_EXAMPLES": str(name == "translation").lower(),
        "SUITE_REQUESTS_PER_MINUTE": "1",
    }
    if name == SUITE:
        environment["SUITE_PROFILE"] = "embedded"
    else:
        environment["SUITE_CACHE_DIR"] = str(with_unmatched_weights(bench.folder / f"{name}-cache"))
    visitors = itertools.count(1)
    blocked = not_required(assembled.files["requirements.txt"].decode())
    with served(folder, blocked=blocked, cwd=elsewhere, environment=environment, forker=bench.forker) as space:

        def ask(visitor: int, endpoint: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
            address = f"203.0.113.{visitor}"  # as the Hub's proxy reports it
            client = Client(space.url, verbose=False, headers={"X-Forwarded-For": address})
            return client.predict(api_name=f"/{endpoint}", **inputs)

        examples = first_examples(folder)
        paths = httpx.get(f"{space.url}gradio_api/info").json()["named_endpoints"]
        profile = httpx.get(f"{space.url}health").json()["profile"]
        trial = Trial(set(examples), {path.strip("/") for path in paths}, profile, page_fields(space.url))
        if name == "translation":
            until = time.monotonic() + PATIENCE
            while "translate" not in ask(next(visitors), "models", {})[0]["endpoints"]:
                assert time.monotonic() < until, "the example was not computed"
                time.sleep(0.2)
            trial.fetched_to_warm = bench.fetched_translators()
        for endpoint, inputs in examples.items():
            visitor = next(visitors)
            try:
                trial.answers[endpoint] = ask(visitor, endpoint, inputs)
            except AppError as error:
                trial.refused[endpoint] = str(error)
                continue
            if not trial.same_visitor_again:
                try:
                    ask(visitor, endpoint, said_otherwise(inputs))
                    trial.same_visitor_again = "was answered"
                except AppError as error:
                    trial.same_visitor_again = str(error)
                trial.another_visitor = ask(next(visitors), endpoint, said_otherwise(inputs))
        trial.fetched = bench.fetched_translators()
        trial.log = space.log
    return trial


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    folder = tmp_path_factory.mktemp("deployed")
    # One after the other: two threads that parse Python at once break Python 3.11's parser now and then (gh-106905).
    folders = {name: assemble(name) for name in NAMES}
    with pytest.MonkeyPatch.context() as patch, StandInHub() as hub:
        turn_clients_to(hub.endpoint, folder / "hf-home", patch)  # those of the processes that are started here too
        made, commits = push_all(hub, folder / "made")
        commits |= {repo: hub.add(repo, made[like]) for repo, like in LIKE.items()}
        with Forker() as forker, ThreadPoolExecutor(2) as pool:
            bench = Bench(folder, forker, commits)
            tried = pool.map(lambda name: try_out(name, folders[name], bench), NAMES)
            return dict(zip(NAMES, tried, strict=True))


@pytest.mark.parametrize("name", SPACES)
def test_a_deployed_space_answers_by_the_courses_checkpoints(trials: dict[str, Trial], name: str) -> None:
    trial = trials[name]
    assert trial.profile == "hub"
    assert trial.refused == {}
    assert {endpoint: answer[-1]["checkpoint"] for endpoint, answer in trial.answers.items()} == {
        endpoint: HUB_DEFAULTS[endpoint] for endpoint in trial.named
    }


def test_the_deployed_suite_answers_by_embedded_weights(trials: dict[str, Trial]) -> None:
    trial = trials[SUITE]
    assert trial.profile == "embedded"
    assert trial.named == set(HUB_DEFAULTS)
    assert list(trial.refused) == ["fill_mask"]
    assert "Hub" in trial.refused["fill_mask"]
    for answer in trial.answers.values():
        assert answer[0]
        assert "/" not in answer[-1]["checkpoint"]


@pytest.mark.parametrize("name", NAMES)
def test_a_deployed_space_has_its_endpoints_and_computes(trials: dict[str, Trial], name: str) -> None:
    trial = trials[name]
    assert trial.named <= trial.served
    assert trial.served - trial.named <= {"models", "batch"}
    for answer in (*trial.answers.values(), trial.another_visitor):
        assert answer[-1]["seconds_running"] > 0


def test_a_translation_space_fetches_its_default_alone_and_when_it_is_asked(trials: dict[str, Trial]) -> None:
    trial = trials["translation"]
    assert trial.fetched_to_warm == set()
    assert trial.fetched == {MARIAN}
    assert (trial.opens_with["From"], trial.opens_with["To"]) == ("en", "es")
    assert trial.opens_with["Text"].startswith("The last train leaves")


@pytest.mark.parametrize("name", NAMES)
def test_visitors_are_told_apart_by_what_the_proxy_says(trials: dict[str, Trial], name: str) -> None:
    assert "minute" in trials[name].same_visitor_again
    assert trials[name].another_visitor


@pytest.mark.parametrize("name", NAMES)
def test_on_a_space_the_admin_is_who_has_the_token(trials: dict[str, Trial], name: str) -> None:
    assert "Admin token: " in trials[name].log


# -- on ZeroGPU ------------------------------------------------------------------------------------------------


@dataclass
class ZeroGPU:
    space: Served
    folder: Path
    log: Path

    @property
    def client(self) -> Client:
        return Client(self.space.url, verbose=False)

    def noted(self, event: str) -> list[dict[str, Any]]:
        notes = map(json.loads, self.log.read_text(encoding="utf-8").splitlines())
        return [note for note in notes if note["event"] == event]


@pytest.fixture(scope="module")
def zero_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZeroGPU]:
    """The suite's folder beside a stand-in for the `spaces` package."""
    tmp_path = tmp_path_factory.mktemp("zero_gpu")
    (tmp_path / "site" / "spaces").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "stand_in_zero_gpu" / "spaces.py", tmp_path / "site" / "spaces" / "__init__.py")
    assemble(SUITE).write(tmp_path / "suite")
    with_compiled_kernels(tmp_path / "suite")
    log = tmp_path / "log.jsonl"
    environment = {
        "SYSTEM": "spaces",
        "SPACE_ID": "somebody/suite",
        "SPACES_ZERO_GPU": "true",
        "STAND_IN_LOG": str(log),
        "GRADIO_SERVER_PORT": str(free_port()),
        "SUITE_PROFILE": "embedded",
        "SUITE_REQUESTS_PER_MINUTE": "0",
    }
    with served(tmp_path / "suite", path=[tmp_path / "site"], cwd=tmp_path, environment=environment) as space:
        yield ZeroGPU(space, tmp_path / "suite", log)


def test_hugging_faces_package_is_found_and_used_before_the_page_is_served(zero_gpu: ZeroGPU) -> None:
    assert zero_gpu.noted("gradio_auto_wrap")
    assert [note["duration"] for note in zero_gpu.noted("decorated")] == [60]


def test_models_are_loaded_before_anybody_asks(zero_gpu: ZeroGPU) -> None:
    report, _ = zero_gpu.client.predict(api_name="/models")
    loaded = {row["checkpoint"] for row in report["checkpoints"] if row["state"] == "loaded" and row["pinned"]}
    assert {"SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "firefox-translations-en-pt"} <= loaded


def test_every_endpoint_computes_in_a_worker(zero_gpu: ZeroGPU) -> None:
    client = zero_gpu.client
    called = len(zero_gpu.noted("called"))
    answered = []
    for endpoint, inputs in first_examples(zero_gpu.folder).items():
        try:
            answer = client.predict(api_name=f"/{endpoint}", **said_otherwise(inputs))
        except AppError as error:
            if "Hub" not in str(error):
                raise
            continue  # it has no embedded checkpoint
        answered.append(endpoint)
        assert answer[0], endpoint
        assert answer[-1]["loaded"], endpoint
    notes = zero_gpu.noted("called")[called:]
    assert [note["name"] for note in notes if note["name"] in answered] == answered
    assert all(note["visitor"] for note in notes)
    assert len({note["worker"] for note in notes}) == len(notes)


def test_a_table_is_answered_in_a_worker(zero_gpu: ZeroGPU, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text\nI loved it.\nNever again.\n")
    table, _ = zero_gpu.client.predict(
        "sentiment", handle_file(str(tmp_path / "reviews.csv")), {"column": "text"}, api_name="/batch"
    )
    lines = Path(table).read_text(encoding="utf-8-sig").splitlines()
    assert [line.split(",")[1] for line in lines] == ["label", "positive", "negative"]
    assert zero_gpu.noted("called")[-1]["name"] == "batch"


def test_errors_come_back_from_a_worker_in_their_own_words(zero_gpu: ZeroGPU) -> None:
    called = len(zero_gpu.noted("called"))
    with pytest.raises(AppError, match=r"translation from en to fr needs Helsinki-NLP/opus-mt-en-fr"):
        zero_gpu.client.predict("Good morning.", "en", "fr", api_name="/translate")
    assert len(zero_gpu.noted("called")) == called + 1
    with pytest.raises(AppError, match="SUITE_MAX_CHARS"):  # refused at the door: costs nobody a GPU
        zero_gpu.client.predict("x" * 70_000, api_name="/translate")
    assert len(zero_gpu.noted("called")) == called + 1


def test_stop_ends_the_worker(zero_gpu: ZeroGPU) -> None:
    ended = len(zero_gpu.noted("ended"))
    job = zero_gpu.client.submit("Once upon a time", max_new_tokens=1000, api_name="/generate")
    texts = [next(iter(job)) for _ in range(3)]
    assert texts[-1][0] or texts[-1][1]
    job.cancel()
    deadline = time.monotonic() + 30
    while len(zero_gpu.noted("ended")) == ended and time.monotonic() < deadline:
        time.sleep(0.2)
    assert zero_gpu.noted("ended")[-1] == {
        "event": "ended",
        "name": "generate",
        "worker": zero_gpu.noted("called")[-1]["worker"],
    }


def test_a_visitor_without_quota_is_told(zero_gpu: ZeroGPU) -> None:
    refuses = zero_gpu.log.with_name("no-quota")
    refuses.touch()
    try:
        with pytest.raises(AppError, match="no GPU for this request: You have exceeded your GPU quota"):
            zero_gpu.client.predict("Where is the station?", api_name="/translate")
    finally:
        refuses.unlink()
    assert zero_gpu.client.predict("Good morning.", api_name="/translate")[0] == "Bom dia."
