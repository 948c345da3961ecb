"""Bad input from the Hub through the running suite: said in plain words, nothing of it run, nothing left half-written,
nothing on the page unescaped, and the next good request works."""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from safetensors.torch import load, save

from shared.checkpoints import pytorch_bin
from shared.fetching import hub_errors, hub_fetch, transfer
from shared.page.models_tab import draw
from shared.settings import Settings
from shared.suite import Suite, serve
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to
from tests.stand_in_hub.refusals import Refusal
from tests.tiny_checkpoints import decoders
from tests.tiny_checkpoints.weights import sharded

pytestmark = pytest.mark.slow

INSIDES = (
    "Traceback",
    'File "',
    ".py",
    "<class",
    " object at 0x",
    "site-packages",
    "Error(",
    "weights_only",
    "our fault",
)


class Hostile:
    """Unpickled without care, it makes a folder."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.victim),)


@dataclass
class Bench:
    hub: StandInHub
    suite: Suite
    client: Client
    home: Path
    cache: Path
    victim: Path
    """What exists only where something was run."""
    files: dict[str, bytes]
    """A good checkpoint."""
    well: bool = False
    """Whether the last request was answered."""

    def push(self, repo: str, changes: dict[str, bytes | str | None] | None = None, **more: Any) -> str:
        """The good checkpoint with other files, or without some (None)."""
        files = {**self.files, **(changes or {})}
        return self.hub.add(repo, {name: data for name, data in files.items() if data is not None}, **more)

    def config(self, **changes: Any) -> bytes:
        return json.dumps({**json.loads(self.files["config.json"]), **changes}).encode()

    def add(self, repo: str) -> str:
        """Presses the Models tab's "Add"; what is then said there, as HTML."""
        with httpx.Client(base_url=self.suite.url, timeout=60) as http:
            config = http.get("config").json()
            ids = {c["id"] for c in config["components"] if c["props"].get("elem_id") == "models-add"}
            event = next(d for d in config["dependencies"] if any(target[0] in ids for target in d["targets"]))
            session = uuid.uuid4().hex
            body = {"data": [repo], "fn_index": event["id"], "session_hash": session}
            http.post("gradio_api/queue/join", json=body).raise_for_status()
            said = ""
            with http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
                for line in stream.iter_lines():
                    message = json.loads(line.removeprefix("data: ") or "{}") if line else {}
                    if message.get("msg") == "process_generating":
                        said = patched(said, message["output"]["data"][1])
                    if message.get("msg") == "process_completed":
                        assert message["success"], message
                        return said
        raise AssertionError("the event did not end")

    def refused(self, repo: str, *words: str) -> str:
        """Adding it is refused with these words, on the page and escaped there; it is in no menu then."""
        said = self.add(repo)
        self.well = False
        assert '<div class="problem" role="alert">' in said
        check(text_of(said), *words)
        assert Tags.of(said) <= {"div", "b"}, "nothing of it may become a tag"
        assert repo not in {c.id for c in self.suite.runtime.catalog}
        return text_of(said)

    def added(self, repo: str) -> None:
        assert f"{repo} was added" in self.add(repo)
        assert repo in {c.id for c in self.suite.runtime.catalog}

    def ask(self, repo: str) -> Any:
        return self.client.predict(prompt="Once", max_new_tokens=3, model=repo, api_name="/generate")

    def fails(self, repo: str, *words: str) -> str:
        """Using it is refused with these words."""
        self.well = False
        with pytest.raises(AppError) as error:
            self.ask(repo)
        return check(str(error.value), *words)

    def works(self, repo: str) -> None:
        text, run = self.ask(repo)
        assert isinstance(text, str)
        assert run["checkpoint"] == repo
        self.well = True

    def leftovers(self) -> list[str]:
        """Files of which only a part is there, and notes and conversions of what is not whole."""
        names = [path.name for folder in (self.home, self.cache) for path in folder.rglob("*")]
        return [name for name in names if name.endswith((".part", ".incomplete"))]

    def note(self, repo: str) -> list[Path]:
        return list((self.cache / "hub").glob(f"{repo.replace('/', '--')}@*.json"))

    def converted(self, repo: str) -> list[Path]:
        folder = self.cache / "converted"
        return [path for path in folder.glob(f"{repo.replace('/', '--')}@*") if path.is_dir()]


class Tags(HTMLParser):
    """Every tag that a browser would make of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    @classmethod
    def of(cls, page: str) -> set[str]:
        parser = cls()
        parser.feed(page)
        return parser.tags


def patched(before: str, change: Any) -> str:
    """Gradio sends a later value as changes to the one before, `["replace", path, value]` among them."""
    if not isinstance(change, list):
        return change
    for action, path, value in change:
        assert not path, change
        before = before + value if action == "append" else value
    return before


def text_of(page: str) -> str:
    from html import unescape

    return unescape(re.sub("<[^>]*>", "", page))


def check(message: str, *words: str) -> str:
    as_written = message[:1].lower() + message[1:]  # the page begins with a capital letter
    for word in words:
        assert word in message or word in as_written, f"{word!r} is not in {message!r}"
    for inside in INSIDES:
        assert inside not in message
    assert "/storage/" not in message
    assert "Signature" not in message
    assert len(message) < 900
    return message


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bad")
    made = decoders.gpt2(folder / "made")
    files = {file.name: file.read_bytes() for file in made.iterdir()}
    with pytest.MonkeyPatch.context() as patch, StandInHub() as hub:
        turn_clients_to(hub.endpoint, folder / "hf-home", patch)
        patch.setattr(hub_errors, "BACKOFF", 0.02)
        patch.setattr(transfer, "BACKOFF", 0.02)
        settings = Settings(
            cache_dir=folder / "cache", port=0, warm_examples=False, answer_cache=0, spaces=("generation",)
        )
        suite = serve(settings, block=False)
        try:
            client = Client(suite.url, verbose=False)
            yield Bench(hub, suite, client, folder / "hf-home", folder / "cache", folder / "was-run", files)
        finally:
            suite.close()


@pytest.fixture
def bench(running: Bench, caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    """The suite; and after each test: nothing was run, nothing is half there, and a good model is had all the same."""
    running.well = False
    yield running
    running.hub.faults.clear()
    assert not running.victim.exists()
    assert running.leftovers() == []
    if not running.well:
        good = f"user/good-{uuid.uuid4().hex[:8]}"
        running.push(good)
        running.added(good)
        running.works(good)
    failures = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR and "hub" not in r.name]
    assert failures == []


# -- ids -------------------------------------------------------------------------------------------


def test_an_unknown_id(bench: Bench) -> None:
    bench.refused(
        "user/nothing-of-the-kind", "the Hub has no repository user/nothing-of-the-kind", "Check the spelling"
    )
    bench.fails("user/nothing-of-the-kind", "model: no checkpoint of this name")


def test_a_mistyped_id(bench: Bench) -> None:
    bench.push("typographer/elegant-model")
    bench.refused("typographer/elegnat-model", "Did you mean typographer/elegant-model?")


IDS = ("../../etc", "user/../../x", "/etc/passwd", "a/b/c", "user\\x", "user/..", "file:///etc", "~/x", "user/a..b", "")
FILES = ("../../../outside.json", "/etc/outside", "a/../../outside", "..\\outside.json", "C:\\outside")


def test_path_tricks_in_ids(bench: Bench) -> None:
    before = sorted(bench.home.rglob("*"))
    for repo in IDS:
        assert "is not a repository id; those look like user/name" in text_of(bench.add(repo)), repo
        if repo in IDS[:3]:
            bench.fails(repo, "model: no checkpoint of this name")
    said = text_of(bench.add("user/x\0y"))
    assert "is not a repository id" in said, said
    assert sorted(bench.home.rglob("*")) == before


def test_path_tricks_in_file_names(bench: Bench) -> None:
    for name in FILES:
        bench.push("user/tricky", {name: b"outside"})
        bench.refused("user/tricky", "user/tricky was refused: it names a file outside its folder")
    assert not list(bench.home.parent.rglob("*outside*"))
    assert not (bench.home / "hub" / "models--user--tricky").exists()


def test_path_tricks_that_come_later(bench: Bench) -> None:
    """The entry is there from before, and the newest commit is another."""
    bench.push("user/later")
    bench.added("user/later")
    commit = bench.push("user/later", {"../outside.json": b"outside"})
    bench.fails(f"user/later@{commit}", "it names a file outside its folder")
    bench.works("user/later")


# -- who may ---------------------------------------------------------------------------------------


def test_a_gated_repository(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("owner/gated", gated=True)
    anonymous = (
        "owner/gated is gated",
        "You must have access to it and be authenticated",
        "Ask for access",
        "HF_TOKEN",
    )
    bench.refused("owner/gated", *anonymous)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    said = bench.refused("owner/gated", "is gated", "not in the authorized list", "Ask for access on its page")
    assert f"{bench.hub.endpoint}/owner/gated" in said, "the Hub's own page is no secret"
    bench.hub.grant("owner/gated", "other")
    bench.added("owner/gated")
    bench.works("owner/gated")


def test_one_that_is_gated_after_it_was_added(bench: Bench) -> None:
    bench.push("owner/gated-later")
    bench.added("owner/gated-later")
    bench.hub.repository("owner/gated-later").gated = "manual"
    bench.fails("owner/gated-later", "is gated", "Ask for access")
    assert bench.note("owner/gated-later") == []


def test_a_private_repository(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("user/private", private=True)
    bench.refused("user/private", "no repository user/private, or it is private", "if it is private, set HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    bench.refused("user/private", "or it is private", "Repository not found")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    bench.added("user/private")
    bench.works("user/private")
    from_storage = [request for request in bench.hub.requests if "/storage/" in request.path]
    assert from_storage
    assert not any("authorization" in request.headers for request in from_storage), "the token stays with the Hub"


@pytest.mark.parametrize("token", ["hf_NobodyKnowsThis", "hf_töken", "hf_a b"])
def test_a_wrong_token(bench: Bench, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    bench.push("user/public")
    bench.added("user/public")
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", token)
        bench.push("user/public-too")
        said = bench.refused("user/public-too", "HF_TOKEN", "orrect", "remove it")
        assert token not in said
        assert token not in bench.fails("user/public", "HF_TOKEN", "remove it")
    bench.works("user/public")


def test_a_hub_that_repeats_the_token(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("user/echo")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    where = f"{bench.hub.storage_address}/storage/x?Signature=secret"
    bench.hub.faults.refuse("/api/models/user/echo", Refusal(403, f"Bearer hf_reader may not; see {where} for more"))
    said = bench.refused("user/echo", "the Hub does not let us read user/echo", "Bearer the token may not", "for more")
    assert "hf_reader" not in said
    assert "secret" not in said


def test_a_disabled_repository(bench: Bench) -> None:
    bench.push("user/disabled")
    bench.hub.repository("user/disabled").disabled = True
    bench.refused("user/disabled", "user/disabled was disabled by the Hub", "Choose another checkpoint")


# -- what is in it ---------------------------------------------------------------------------------


def test_no_safetensors_and_no_pickle(bench: Bench) -> None:
    bench.push("user/only-h5", {"model.safetensors": None, "tf_model.h5": b"h5"})
    bench.refused("user/only-h5", "neither model.safetensors nor pytorch_model.bin (it has .h5)", "Convert it")


def hostile_pickles(victim: Path) -> dict[str, Callable[[Path], None]]:
    def legacy(path: Path) -> None:
        torch.save({"w": Hostile(victim)}, path, _use_new_zipfile_serialization=False)

    return {
        "zip": lambda path: torch.save({"w": Hostile(victim)}, path),
        "legacy": legacy,
        "module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    }


@pytest.mark.parametrize("form", hostile_pickles(Path()))
def test_a_hostile_pickle(bench: Bench, tmp_path: Path, form: str) -> None:
    hostile_pickles(bench.victim)[form](tmp_path / "x.bin")
    repo = f"user/pickle-{form.replace(' ', '-')}"
    bench.push(repo, {"model.safetensors": None, "pytorch_model.bin": (tmp_path / "x.bin").read_bytes()})
    bench.added(repo)
    for _ in range(2):  # now, and when its files lie in the cache already
        bench.fails(repo, f"{repo} cannot be used: pytorch_model.bin was refused", "hoose another checkpoint")
        assert not bench.victim.exists()
        assert bench.note(repo) == []
        assert bench.converted(repo) == []


def test_a_hostile_shard(bench: Bench, tmp_path: Path) -> None:
    names = [f"pytorch_model-{number}-of-00002.bin" for number in ("00001", "00002")]
    torch.save({"a": torch.zeros(3)}, tmp_path / "good.bin")
    torch.save({"w": Hostile(bench.victim)}, tmp_path / "bad.bin")
    index = json.dumps({"weight_map": {"a": names[0], "w": names[1]}})
    changes: dict[str, bytes | str | None] = {"model.safetensors": None, "pytorch_model.bin.index.json": index}
    changes |= {names[0]: (tmp_path / "good.bin").read_bytes(), names[1]: (tmp_path / "bad.bin").read_bytes()}
    bench.push("user/pickle-in-shards", changes)
    bench.added("user/pickle-in-shards")
    bench.fails("user/pickle-in-shards", f"{names[1]} was refused", "asks for posix.mkdir", "nothing in it was run")
    assert bench.note("user/pickle-in-shards") == bench.converted("user/pickle-in-shards") == []


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_harmless_pickle_works(bench: Bench, tmp_path: Path, zipped: bool) -> None:
    torch.save(load(bench.files["model.safetensors"]), tmp_path / "x", _use_new_zipfile_serialization=zipped)
    repo = f"user/harmless-{zipped}"
    bench.push(repo, {"model.safetensors": None, "pytorch_model.bin": (tmp_path / "x").read_bytes()})
    bench.added(repo)
    bench.works(repo)


def test_remote_code(bench: Bench) -> None:
    code = {"modeling_evil.py": f"import os; os.mkdir({str(bench.victim)!r})"}
    named = {"AutoConfig": "modeling_evil.Config", "AutoModelForCausalLM": "modeling_evil.Model"}
    bench.push("user/code", {**code, "config.json": bench.config(auto_map=named)})
    bench.refused(
        "user/code", "user/code was refused", "asks to run code from a repository", "which this suite never does"
    )
    assert not (bench.home / "hub" / "models--user--code").exists()


def test_remote_code_of_the_tokenizer(bench: Bench) -> None:
    code = {"tok_evil.py": f"import os; os.mkdir({str(bench.victim)!r})"}
    config = {**json.loads(bench.files["tokenizer_config.json"]), "auto_map": {"AutoTokenizer": ["tok_evil.T", None]}}
    bench.push("user/tokenizer-code", {**code, "tokenizer_config.json": json.dumps(config)})
    bench.added("user/tokenizer-code")
    bench.fails("user/tokenizer-code", "its tokenizer_config.json asks to run code", "which this suite never does")
    assert bench.note("user/tokenizer-code") == []
    assert not list(bench.home.rglob("tok_evil.py"))
    assert not list(bench.home.rglob("models--user--tokenizer-code/snapshots/*/model.safetensors"))


def test_a_kernel_of_the_hub(bench: Bench) -> None:
    bench.push("user/kernel-user", {"config.json": bench.config(attn_implementation="user/evil-kernel")})
    bench.refused("user/kernel-user", "asks to run code from a repository (attn_implementation, a kernel)")
    assert not any("evil-kernel" in request.path for request in bench.hub.requests)


def test_an_architecture_that_transformers_does_not_know(bench: Bench) -> None:
    tomorrow = bench.config(model_type="tomorrow", architectures=["TomorrowForCausalLM"])
    bench.push("user/tomorrow", {"config.json": tomorrow})
    bench.refused(
        "user/tomorrow", "architecture 'tomorrow'", "the installed transformers", "does not know", "choose another"
    )
    bench.push("user/tomorrow-later")
    bench.added("user/tomorrow-later")
    commit = bench.push("user/tomorrow-later", {"config.json": tomorrow})
    bench.fails(f"user/tomorrow-later@{commit}", "architecture 'tomorrow'", "does not know; choose another checkpoint")
    bench.works("user/tomorrow-later")


TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")


def test_no_tokenizer(bench: Bench) -> None:
    bench.push("user/mute", dict.fromkeys(TOKENIZER_FILES))
    bench.refused("user/mute", "user/mute has no tokenizer", "choose another checkpoint")
    bench.push("user/mute-later")
    bench.added("user/mute-later")
    commit = bench.push("user/mute-later", dict.fromkeys(TOKENIZER_FILES))
    bench.fails(f"user/mute-later@{commit}", "tokenizer", "user/mute-later", "choose another checkpoint")


def test_half_a_tokenizer(bench: Bench) -> None:
    bench.push("user/half-mute", {"tokenizer.json": None, "merges.txt": None})
    bench.added("user/half-mute")
    bench.fails("user/half-mute", "tokenizer", "user/half-mute", "choose another checkpoint")


def in_shards(bench: Bench, tmp_path: Path) -> dict[str, bytes]:
    for name, data in bench.files.items():
        (tmp_path / name).write_bytes(data)
    sharded(tmp_path, 3)
    return {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_a_missing_shard(bench: Bench, tmp_path: Path) -> None:
    files = in_shards(bench, tmp_path)
    bench.hub.add("user/whole", files)
    bench.added("user/whole")
    bench.works("user/whole")
    files.pop("model-00002-of-00003.safetensors")
    bench.hub.add("user/not-whole", files)
    bench.refused("user/not-whole", "user/not-whole is not whole", "2 of its 3 shards", "Tell its owner")


def test_an_index_that_names_other_shards(bench: Bench, tmp_path: Path) -> None:
    files = in_shards(bench, tmp_path)
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../../outside.safetensors")
    bench.hub.add("user/strange-index", files | {"model.safetensors.index.json": json.dumps(index).encode()})
    bench.added("user/strange-index")
    bench.fails("user/strange-index", "the weights of user/strange-index are incomplete", "choose another checkpoint")


def test_weights_that_do_not_fit(bench: Bench) -> None:
    weights = load(bench.files["model.safetensors"])
    cut = {name: value for name, value in weights.items() if "h.1." not in name}
    bench.push("user/too-few", {"model.safetensors": save(cut, {"format": "pt"})})
    bench.added("user/too-few")
    bench.fails("user/too-few", "incomplete", "user/too-few", "choose another checkpoint")
    bench.push("user/garbled", {"model.safetensors": b"\xff" * 1000})
    bench.added("user/garbled")
    bench.fails("user/garbled", "user/garbled", "damaged or cut short", "choose another checkpoint")


# -- on the way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_content_than_the_hub_states(bench: Bench, name: str) -> None:
    repo = f"user/altered-{name.replace('.', '-')}"
    # Its own bytes: what one repository has of a file, another of the same content need not fetch.
    bench.push(repo, {"config.json": bench.config(n_ctx=uuid.uuid4().int % 1000)})
    bench.added(repo)
    bench.hub.faults.corrupt(f"/{name}")
    bench.fails(repo, f"{name} of {repo} arrived with another content than the Hub states", "thrown away", "try again")
    assert bench.note(repo) == []
    assert bench.leftovers() == []
    bench.hub.faults.clear()
    bench.works(repo)


def test_altered_when_it_is_added(bench: Bench) -> None:
    bench.push("user/altered-early")
    bench.hub.faults.corrupt("config.json")
    bench.refused("user/altered-early", "config.json of user/altered-early arrived with another content")
    bench.hub.faults.clear()
    bench.added("user/altered-early")


def test_a_break_at_half_is_mended(bench: Bench) -> None:
    bench.push("user/breaks")
    bench.added("user/breaks")
    size = len(bench.files["model.safetensors"])
    before = bench.hub.sent("/storage/")
    bench.hub.faults.cut("/storage/", at=0.5)
    bench.works("user/breaks")
    assert bench.hub.sent("/storage/") - before < 1.2 * size
    assert any(request.range for request in bench.hub.requests if "/storage/" in request.path)


def test_a_line_that_stays_broken_is_gone_on_with_later(bench: Bench) -> None:
    bench.push("user/stays-broken")
    bench.added("user/stays-broken")
    size = len(bench.files["model.safetensors"])
    bench.hub.faults.cut("/storage/", at=0.5, times=3)  # the first half, half of the rest, and half of that
    bench.hub.faults.cut("/storage/", at=0.0, times=20)
    half = bench.hub.sent("/storage/")
    bench.fails("user/stays-broken", "the connection broke while user/stays-broken was fetched", "goes on from there")
    half = bench.hub.sent("/storage/") - half
    assert bench.note("user/stays-broken") == []
    bench.hub.faults.clear()
    before = bench.hub.sent("/storage/")
    bench.works("user/stays-broken")
    assert half + bench.hub.sent("/storage/") - before == size


@pytest.mark.parametrize("where", ["/api/models/", "/resolve/", "/storage/"])
@pytest.mark.parametrize("fault", ["rate_limit", "server_error"])
def test_a_busy_hub_is_asked_again(bench: Bench, where: str, fault: str) -> None:
    repo = f"user/busy-{where.strip('/').replace('/', '-')}-{fault.replace('_', '-')}"
    bench.push(repo)
    getattr(bench.hub.faults, fault)(where, times=2)
    bench.added(repo)
    getattr(bench.hub.faults, fault)(where, times=2)
    bench.works(repo)


def test_a_hub_that_stays_busy(bench: Bench) -> None:
    bench.push("user/overrun")
    bench.hub.faults.rate_limit("/api/models/", times=50)
    bench.refused("user/overrun", "the Hub asks for fewer requests (429)", "try again")
    bench.hub.faults.clear()
    bench.added("user/overrun")
    bench.hub.faults.server_error("/storage/", times=50)
    bench.fails("user/overrun", "the connection broke", "the server answered 503", "Try again")
    bench.hub.faults.clear()
    bench.works("user/overrun")


def test_an_unreachable_hub(bench: Bench) -> None:
    bench.push("user/far")
    bench.added("user/far")
    bench.hub.faults.unreachable()
    bench.refused("user/far-too", "the Hub cannot be reached", "check the network, the proxy and HF_ENDPOINT")
    bench.fails("user/far", "the Hub cannot be reached")
    bench.hub.faults.clear()
    bench.works("user/far")


def test_a_hub_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_errors, "ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(hub_fetch, "ANSWER_WITHIN", 0.3)
    bench.push("user/hangs")
    bench.hub.faults.hang("/api/models/user/hangs")
    bench.refused("user/hangs", "the Hub cannot be reached", "timed out")
    bench.hub.faults.clear()
    bench.added("user/hangs")
    bench.hub.faults.gate("/storage/", at=0.0)
    bench.fails("user/hangs", "the connection broke", "timed out", "it goes on from there")
    bench.hub.faults.clear()
    bench.works("user/hangs")


# -- this machine ----------------------------------------------------------------------------------


def test_a_disk_that_is_too_full(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("user/roomy")
    bench.added("user/roomy")
    before = bench.hub.sent("/storage/")
    with monkeypatch.context() as patch:
        patch.setattr(hub_fetch, "MARGIN", 10**18)
        bench.fails("user/roomy", "the disk is too full", "Make room, or name a folder on a larger disk in HF_HOME")
    assert bench.hub.sent("/storage/") == before
    bench.works("user/roomy")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_on_the_way(bench: Bench) -> None:
    """The file that the bytes go to is on a device that takes none, as a full disk does."""
    bench.push("user/fills-up", {"model.safetensors": save(load(bench.files["model.safetensors"]), {"of": "its own"})})
    bench.added("user/fills-up")
    ((_, file),) = [
        item
        for item in bench.hub.repository("user/fills-up").find("main").files.items()
        if item[0] == "model.safetensors"
    ]
    part = bench.home / "hub" / "models--user--fills-up" / "blobs" / f"{file.sha256}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    bench.fails("user/fills-up", "the disk is full; make room", "HF_HOME", "try again")
    assert bench.note("user/fills-up") == []
    part.unlink(missing_ok=True)
    bench.works("user/fills-up")


def test_a_folder_that_cannot_be_written_to(bench: Bench) -> None:
    bench.push("user/nowhere-to-go")
    bench.added("user/nowhere-to-go")
    storage = bench.home / "hub" / "models--user--nowhere-to-go"
    storage.write_text("a file where a folder should be")
    bench.fails("user/nowhere-to-go", "the files of user/nowhere-to-go cannot be written", "HF_HOME")
    storage.unlink()
    bench.works("user/nowhere-to-go")


def test_a_model_over_the_memory_budget(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.push("user/huge")
    bench.added("user/huge")
    before = len(bench.hub.requests)
    with monkeypatch.context() as patch:
        patch.setattr(bench.suite.runtime.cache, "budget", 100_000)
        bench.fails("user/huge", "model: user/huge needs", "the memory budget is", "choose a smaller one")
    assert len(bench.hub.requests) == before, "refused before anything is fetched"
    bench.works("user/huge")


def test_a_pickle_that_memory_cannot_hold(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(load(bench.files["model.safetensors"]), tmp_path / "x", _use_new_zipfile_serialization=False)
    bench.push("user/heavy", {"model.safetensors": None, "pytorch_model.bin": (tmp_path / "x").read_bytes()})
    bench.added("user/heavy")
    before = bench.hub.sent("/storage/")
    said = ("is published as a pickle", "MB of memory, of which 1 MB are free", "choose a smaller one")
    with monkeypatch.context() as patch:
        patch.setattr(pytorch_bin, "free_memory", lambda: 10**6)
        bench.fails("user/heavy", "user/heavy is published", *said, "Nothing was fetched")
        assert bench.hub.sent("/storage/") == before
        # Others took the memory while it was fetched.
        patch.setattr(hub_fetch, "refuse_without_memory", lambda *_: None)
        bench.fails("user/heavy", "user/heavy cannot be used: pytorch_model.bin", *said)
    assert bench.note("user/heavy") == bench.converted("user/heavy") == []
    assert bench.hub.sent("/storage/") > before
    bench.works("user/heavy")


# -- what is shown ---------------------------------------------------------------------------------

EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


def test_a_card_with_hostile_html(bench: Bench) -> None:
    card = {"license": EVIL, "language": [EVIL, "en"], "tags": [EVIL], "title": EVIL, "pipeline_tag": "text-generation"}
    bench.push("user/hostile-card", card=card)
    bench.added("user/hostile-card")
    for _ in range(2):  # among those elsewhere, and among those that are here
        page = draw(bench.suite.runtime)
        assert "user/hostile-card" in page
        assert "<img" not in page
        assert not {"img", "script"} & Tags.of(page)
        assert "&lt;img src=x" in page
        bench.works("user/hostile-card")
    config = httpx.get(f"{bench.suite.url}config").text
    assert "<script>alert(2)" not in config


def test_errors_with_hostile_html(bench: Bench) -> None:
    bench.push("user/hostile-config", {"config.json": bench.config(architectures=[EVIL])})
    assert "<img" in bench.refused("user/hostile-config", "which no engine here runs"), "said as text, not as a tag"
    bench.push("user/hostile-type", {"config.json": bench.config(model_type=EVIL)})
    bench.refused("user/hostile-type", "does not know")
    bench.push("user/hostile-hub")
    bench.hub.faults.refuse("/api/models/user/hostile-hub", Refusal(403, f"No. {EVIL}"))
    bench.refused("user/hostile-hub", "the Hub does not let us read user/hostile-hub", "<img src=x")


def test_a_card_that_is_no_card(bench: Bench) -> None:
    bench.push("user/odd-card", card={"ignore_metadata_errors": True})
    bench.refused("user/odd-card", "user/odd-card cannot be read", "its card", "choose another checkpoint")
