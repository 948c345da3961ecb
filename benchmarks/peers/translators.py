"""Firefox Translations en→pt by the suite's engine, and by the same network in float32, a sentence at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.servers import MARIAN, weights
from shared.machine import usable_cores


class Suite:
    def __init__(self) -> None:
        from benchmarks.peers.loans import Loans
        from shared.serving.lease import Lease

        self.loans = Loans(Lease.translator, "translation", ("en", "pt"))
        self.facts = self.loans.facts

    def translate(self, sentences: Sequence[str]) -> dict[str, Any]:
        begun = time.perf_counter()
        found = self.loans.engine.translate(sentences, pair=("en", "pt"))
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "texts": [one.text for one in found], "new": sum(one.new_tokens for one in found)}


class FloatLoop:
    def __init__(self) -> None:
        from benchmarks.peers.naive import float_translator

        self.engine = float_translator(Path(weights(MARIAN)))

    def facts(self) -> dict[str, Any]:
        return {"engine": "fp32", "threads": usable_cores()}

    def translate(self, sentences: Sequence[str]) -> dict[str, Any]:
        begun = time.perf_counter()
        found = [self.engine.translate([sentence])[0] for sentence in sentences]
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "texts": [one.text for one in found], "new": sum(one.new_tokens for one in found)}


CONTESTANTS = {"the suite's engine": Suite, "float32 loop (the naive peer's)": FloatLoop}
