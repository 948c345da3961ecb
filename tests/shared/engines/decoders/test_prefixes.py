"""Prompts read before, and the room that there is for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.engines.compute import RunHere
from shared.engines.decoders import batched
from shared.engines.decoders.prefixes import MIN_TOKENS, PrefixCache
from shared.scheduling.cache import ModelCache
from shared.settings import Settings
from tests.tiny_checkpoints.decoders import llama_chat
from tests.tiny_checkpoints.entry import entry

PROMPT = list(range(3, 63))


@dataclass(frozen=True)
class Block:
    nbytes: int


class Visitor(RunHere):
    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner


def keep(prefixes: PrefixCache[Block], owner: str, nbytes: int) -> None:
    prefixes.store(owner, range(MIN_TOKENS), Block(nbytes))


def known(prefixes: PrefixCache[Block], *owners: str) -> list[bool]:
    return [prefixes.longest(owner, range(MIN_TOKENS + 1))[1] is not None for owner in owners]


def test_less_room_drops_the_oldest_and_more_room_is_used_again() -> None:
    prefixes: PrefixCache[Block] = PrefixCache(10)
    for owner in ("ada", "bob", "cleo"):
        keep(prefixes, owner, 3)
    prefixes.limit(6)
    assert (prefixes.nbytes, known(prefixes, "ada", "bob", "cleo")) == (6, [False, True, True])
    keep(prefixes, "dora", 3)
    assert (prefixes.nbytes, known(prefixes, "bob", "cleo", "dora")) == (6, [False, True, True])
    prefixes.limit(0)
    keep(prefixes, "ada", 1)
    assert prefixes.nbytes == 0
    prefixes.limit(100)
    for owner in ("ada", "bob", "cleo", "dora"):
        keep(prefixes, owner, 3)
    assert prefixes.nbytes == 9


def test_what_is_larger_than_the_room_drops_nothing() -> None:
    prefixes: PrefixCache[Block] = PrefixCache(10)
    keep(prefixes, "ada", 4)
    prefixes.limit(5)
    keep(prefixes, "bob", 6)
    assert known(prefixes, "ada", "bob") == [True, False]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """`load()`: a tiny Llama in the engine that its catalog entry names."""
    checkpoint = entry(engine="decoders.batched")
    folder = llama_chat(tmp_path / "published")
    settings = Settings(cache_dir=tmp_path / "cache")
    return lambda *_: batched.load(checkpoint, folder, settings, lambda *_: None)


@pytest.mark.skipif(bool(batched.why_not(Settings())), reason="this processor is not for the fast engine")
def test_the_fast_engine_keeps_what_the_cache_leaves_it(load: Callable[..., Any]) -> None:
    size = load().nbytes
    first, second = (entry(id=name, engine="decoders.batched") for name in ("first", "second"))
    cache = ModelCache(2 * size + 1000, load, lambda _: size)
    with cache.hold(first) as borrowed:
        engine = borrowed.engine
        for n in range(50):
            engine.next_token_logits([*PROMPT, n], Visitor(f"visitor {n}"))
            assert cache.bytes_held() <= cache.budget
        assert 1000 < engine.cached_bytes == cache.bytes_held() - size
        length, _ = engine.prefixes.longest("visitor 49", PROMPT)
        assert length == len(PROMPT) - 1
        with cache.hold(second):
            assert engine.cached_bytes <= 1000
            assert cache.bytes_held() <= cache.budget
            engine.next_token_logits(PROMPT, Visitor("ada"))
            assert cache.bytes_held() <= cache.budget
    assert cache.report()["evictions"] == 0
