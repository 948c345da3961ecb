"""A process killed while the fast engine converts weights: nothing half done is loaded, the next one starts over.

The killed processes are real and so is what they convert. Where in the conversion they die is decided by what they do
(Python's audit events), so that it is the same place every time, however the engine writes its files.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.engines.decoders import batched
from shared.settings import Settings
from tests.tiny_checkpoints.decoders import llama_chat
from tests.tiny_checkpoints.entry import entry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system"),
    pytest.mark.skipif(bool(batched.why_not(Settings())), reason="this processor is not for the fast engine"),
]

ROOT = Path(__file__).parents[3]
CHECKPOINT = entry(engine="decoders.batched")
PROMPT = [5, 6, 7, 8, 9]

PLACES = {
    "the first file is opened": "open w",
    "the weights are written": "open r model.safetensors",
    "the manifest is opened": "open w converted.json",
    "all is there but for the name": "os.rename",
}
"""By the place, the event at which the process dies: in the folder of the unfinished conversion."""

KILLED = """
import json, os, signal, sys
from pathlib import Path
from transformers import AutoModelForCausalLM, LlamaForCausalLM  # once, for all who are forked
from shared.engines.decoders import batched
from shared.settings import Settings
from tests.tiny_checkpoints.entry import entry

source, caches = Path(sys.argv[1]), json.loads(sys.argv[2])

def convert(cache, fatal):
    def die(event, arguments):
        path = str(arguments[0]) if arguments else ""
        if ".part" not in path or event not in ("open", "os.rename"):
            return
        seen = event
        if event == "open":
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
            seen += f" {'w' if writes else 'r'} {Path(path).name}"
        if seen.startswith(fatal):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
    checkpoint = entry(engine="decoders.batched")
    batched.prepare(checkpoint, source, Settings(cache_dir=cache), lambda *_: None)

died_of = {}
for cache, fatal in caches.items():
    child = os.fork()
    if child == 0:
        convert(cache, fatal)
        os._exit(0)
    died_of[cache] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(died_of))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_chat(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def killed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the place, the cache folder of a process that was killed there."""
    caches = {place: tmp_path_factory.mktemp("cache") for place in PLACES}
    told = {str(cache): PLACES[place] for place, cache in caches.items()}
    command = [sys.executable, "-c", KILLED, str(source), json.dumps(told)]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == dict.fromkeys(told, -signal.SIGKILL)
    return caches


def load(cache: Path, source: Path) -> tuple[Any, list[str]]:
    """The engine, and what was said while it was loaded."""
    told: list[str] = []
    engine = batched.load(CHECKPOINT, source, Settings(cache_dir=cache), lambda what, done, total: told.append(what))
    return engine, told


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Logits of an engine whose conversion nobody disturbed."""
    engine, told = load(tmp_path_factory.mktemp("undisturbed"), source)
    assert f"converting {CHECKPOINT.id}, once" in told
    return engine.next_token_logits(PROMPT)


def conversions(cache: Path) -> list[str]:
    return sorted(path.name for path in Settings(cache_dir=cache).converted_dir.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("place", PLACES)
def test_the_next_start_converts_anew(place: str, killed: dict[str, Path], source: Path, expected: np.ndarray) -> None:
    cache = killed[place]
    (half,) = conversions(cache)
    assert half.endswith(".part")
    engine, told = load(cache, source)
    assert f"converting {CHECKPOINT.id}, once" in told
    assert np.array_equal(engine.next_token_logits(PROMPT), expected)
    assert conversions(cache) == [half.removeprefix(".").removesuffix(".part")]
    again, told = load(cache, source)
    assert not [what for what in told if what.startswith("converting")]
    assert np.array_equal(again.next_token_logits(PROMPT), expected)
