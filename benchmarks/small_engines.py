"""Encoder and translator alone: MiniLM and the Firefox translations by several engines, asked in turns."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.engines import workers
from benchmarks.peers import encoders, translators
from benchmarks.report import say, table
from benchmarks.stats import spread
from benchmarks.workload import english, topics

BATCHES = (1, 8, 64)
ROUNDS = 3
FAR = 400_000
TRUTH = {"encoders": "transformers, fp32", "translators": "float32 loop (the naive peer's)"}


def section(quick: bool) -> str:
    return "\n\n".join([encoder_table(quick), translator_table(quick)])


def encoder_table(quick: bool) -> str:
    rates: dict[str, dict[int, list[float]]] = {}
    vectors: dict[str, Any] = {}
    with workers("encoders", tuple(encoders.MAKERS)) as (there, absent):
        facts = {name: worker.facts for name, worker in there.items()}
        for worker in there.values():
            worker.do("encode", texts=[topics(FAR)] * 4)
        for number in range(1 if quick else ROUNDS):
            for batch in BATCHES:
                texts = [topics(FAR + number * 1000 + batch * 10 + i) for i in range(batch)]
                for name, worker in there.items():
                    found = worker.do("encode", texts=texts)
                    rates.setdefault(name, {}).setdefault(batch, []).append(batch / found["seconds"])
                    vectors[name] = np.array(found["vectors"])
    truth = vectors.get(TRUTH["encoders"])
    rows = []
    for name in encoders.MAKERS:
        if name in absent:
            rows.append([name, absent[name], *[""] * (len(BATCHES) + 2)])
            continue
        alike = f"{float((vectors[name] * truth).sum(1).min()):.4f}" if truth is not None else ""
        about = facts[name]
        rows.append([name, about["engine"], str(about["threads"]),
                     *(spread(rates[name][batch]) for batch in BATCHES), alike])  # fmt: skip
    say("MiniLM engines done")
    columns = ["engine", "format", "threads", *(f"texts/s, batch {batch}" for batch in BATCHES), "least cosine"]
    return (
        "### Engines alone: all-MiniLM-L6-v2\n\nSentences of about twenty words, tokenizing included, in turns. "
        "*Least cosine*: of a vector with that of transformers in float32.\n\n" + table(columns, rows, left=2)
    )


def translator_table(quick: bool) -> str:
    rates: dict[str, dict[int, list[float]]] = {}
    tokens: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    with workers("translators", tuple(translators.CONTESTANTS)) as (there, absent):
        facts = {name: worker.facts for name, worker in there.items()}
        for worker in there.values():
            worker.do("translate", sentences=[english(FAR)])
        for number in range(1 if quick else ROUNDS):
            for batch in BATCHES:
                sentences = [english(FAR + number * 1000 + batch * 10 + i) for i in range(batch)]
                for name, worker in there.items():
                    found = worker.do("translate", sentences=sentences)
                    rates.setdefault(name, {}).setdefault(batch, []).append(batch / found["seconds"])
                    if batch == 1:
                        tokens.setdefault(name, []).append(found["new"] / found["seconds"])
                    texts[name] = texts.get(name, []) + found["texts"]
    truth = texts.get(TRUTH["translators"], [])
    rows = []
    for name in translators.CONTESTANTS:
        if name in absent:
            rows.append([name, absent[name], *[""] * (len(BATCHES) + 3)])
            continue
        alike = sum(a == b for a, b in zip(texts[name], truth, strict=False))
        about = facts[name]
        rows.append([name, about["engine"], str(about["threads"]), spread(tokens[name]),
                     *(spread(rates[name][batch]) for batch in BATCHES), f"{alike} of {len(truth)}"])  # fmt: skip
    say("translation engines done")
    columns = ["engine", "format", "threads", "tokens/s, batch 1", *(f"sentences/s, batch {b}" for b in BATCHES),
               "same text"]  # fmt: skip
    return (
        "### Engines alone: Firefox Translations en→pt\n\nGreedy, in turns. transformers, CTranslate2, ONNX Runtime "
        "and llama.cpp read none of these weights. *Same text*: as the float32 loop's.\n\n"
        + table(columns, rows, left=2)
    )
