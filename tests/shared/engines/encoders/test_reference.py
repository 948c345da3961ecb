"""The sentence encoder on its real weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from shared.checkpoints.catalog import Catalog
from shared.engines.compute import RunHere
from shared.engines.encoders import batched, reference
from shared.engines.encoders.batched import BatchedSentenceEncoder
from shared.engines.encoders.bert import BertNetwork
from shared.engines.encoders.reference import TorchSentenceEncoder, batches_by_length, memory_bytes
from shared.errors import Cancelled, WeightsCorrupt
from shared.scheduling.lane import Lane
from shared.settings import Settings
from tests.shared.engines.decoders.test_batched import Turns

ROOT = Path(__file__).parents[4]

T = TypeVar("T")

TEXTS = [
    "Hello",
    "The harbour town will ban cruise ships from next May.",
    "日本語 and 🙂 and ünïcödé",
    "x " * 40,
    "She bought two apples and a bottle of milk, and then she went home by the last bus of the evening.",
]


@pytest.fixture(scope="module")
def encoder(settings: Settings, weights: Callable[[str], Path]) -> Any:
    checkpoint = Catalog.read().choose("", "feature-extraction")
    return reference.load(checkpoint, weights(checkpoint.id), settings, lambda *_: None)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def fast(request: pytest.FixtureRequest, settings: Settings, weights: Callable[[str], Path]) -> BatchedSentenceEncoder:
    checkpoint = Catalog.read().choose("", "feature-extraction")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched, "BertNetwork", partial(BertNetwork, int8=request.param == "int8"))
        engine = batched.load(checkpoint, weights(checkpoint.id), settings, lambda *_: None)
    assert isinstance(engine, BatchedSentenceEncoder)
    assert engine.name == f"compiled-{request.param}"
    return engine


def test_the_fast_engine_gives_the_references_vectors(encoder: Any, fast: BatchedSentenceEncoder) -> None:
    longer = [*TEXTS, "", "a long story " * 300]
    ours, theirs = fast.encode(longer), encoder.encode(longer)
    closeness = (ours * theirs).sum(1)[[i for i, text in enumerate(longer) if text]]
    assert (closeness > (0.99999 if fast.name == "compiled-fp32" else 0.999)).all()
    assert not ours[longer.index("")].any()


def test_a_vector_is_the_same_alone_and_in_company(fast: BatchedSentenceEncoder) -> None:
    lane = Lane(2, width=2)
    alone = np.concatenate([fast.encode([text]) for text in TEXTS])
    with ThreadPoolExecutor(len(TEXTS)) as threads:
        begun = [threads.submit(fast.encode, [text], Turns(lane, text)) for text in TEXTS]
        together = np.concatenate([one.result(60) for one in begun])
    lane.close()
    assert np.array_equal(together, alone)


def test_the_reference_answers_where_it_is_set(settings: Settings, weights: Callable[[str], Path]) -> None:
    checkpoint = Catalog.read().choose("", "feature-extraction")
    plain = settings.model_copy(update={"engines": "reference"})
    engine = batched.load(checkpoint, weights(checkpoint.id), plain, lambda *_: None)
    assert isinstance(engine, TorchSentenceEncoder)


READ_BY_ITSELF = """
import json, sys
import psutil
from shared.events import result_of
from shared.serving.context import Context
from shared.serving.runtime import start
from shared.settings import Settings
context = Context(start(Settings(engines="fast")))
borrowing = context.borrow("all-MiniLM-L6-v2", "feature-extraction")
while True:
    try:
        next(borrowing)
    except StopIteration as ready:
        lease = ready.value
        break
lease.sentence_encoder().encode(["Hello"], lease.compute)
mapped = [m.path for m in psutil.Process().memory_maps(grouped=False) if m.path.endswith("model.safetensors")]
print(json.dumps([lease.engine.name, "transformers" in sys.modules, len(mapped)]))
context.runtime.lane.close()
"""


def test_the_fast_engine_needs_no_transformers_and_keeps_its_embeddings_in_the_file() -> None:
    done = subprocess.run([sys.executable, "-c", READ_BY_ITSELF], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Two mappings, of the embeddings and of the pooler; that of the layers is given back.
    assert json.loads(done.stdout) == ["compiled-int8", False, 2]


def test_weights_that_lack_a_layer_are_refused(
    settings: Settings, weights: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = Catalog.read().choose("", "feature-extraction")
    folder = weights(checkpoint.id)
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    named = load_file(folder / "model.safetensors")
    del named["encoder.layer.5.output.dense.bias"]
    save_file(named, tmp_path / "model.safetensors")
    with pytest.raises(WeightsCorrupt, match=r"they lack .*layer\.5\.output\.dense\.bias"):
        batched.load(checkpoint, tmp_path, settings, lambda *_: None)


def test_vectors_are_of_length_one(encoder: Any) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_text_has_the_same_vector_alone_and_among_others(encoder: Any) -> None:
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-4)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], alone, atol=1e-4)


def test_bounded_batches_change_nothing(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encoder.encode(TEXTS)
    monkeypatch.setattr(reference, "batches_by_length", lambda lengths: batches_by_length(lengths, 1))
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-4)


def test_what_is_close_in_meaning_is_close_in_space(encoder: Any) -> None:
    near = ["The cat sleeps on the sofa.", "A kitten is napping on the couch."]
    far = ["Interest rates rose by half a point.", "How do I replace the chain of a bicycle?"]
    similarity = encoder.encode([*near, *far]) @ encoder.encode([*near, *far]).T
    assert similarity[0, 1] > 0.5
    assert similarity[0, 1] > similarity[:2, 2:].max() + 0.3


def test_a_known_similarity(encoder: Any) -> None:
    """That sentence-transformers publishes on the model's card family: identical texts 1, these two close."""
    a, b, c = encoder.encode(["That is a happy person", "That is a very happy person", "Today is a sunny day"])
    assert float(a @ a) == pytest.approx(1, abs=1e-5)
    assert float(a @ b) == pytest.approx(0.943, abs=0.01)
    assert float(a @ c) == pytest.approx(0.257, abs=0.01)


def test_no_texts_and_texts_without_tokens(encoder: Any) -> None:
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.count_tokens([]) == []
    vectors = encoder.encode(["", "something", " "])
    assert not vectors[0].any()
    assert not vectors[2].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1, abs=1e-5)


def test_tokens_are_counted_without_markers(encoder: Any) -> None:
    assert encoder.count_tokens(["hello", "hello world", ""]) == [1, 2, 0]
    assert encoder.count_tokens(["word " * 1000]) == [1000]


def test_a_long_text_is_read_to_its_end(encoder: Any) -> None:
    cats = "The cat sleeps on the warm sofa. " * 60
    loans = "The bank raised its interest rates. " * 60
    assert min(encoder.count_tokens([cats, loans])) > encoder.max_tokens
    both, front, loan = encoder.encode([cats + loans, cats, "Interest rates of a bank."])
    assert float(both @ loan) > float(front @ loan) + 0.2  # cut at its window, the text would be all cats


def test_the_vector_of_a_long_text_is_the_weighted_mean_of_its_windows(encoder: Any) -> None:
    room = encoder.max_tokens - 2
    first, rest = "cat " * room, "bank " * 50
    assert encoder.count_tokens([first, rest]) == [room, 50]
    a, b = encoder.encode([first, rest])
    mean = a * (room + 2) + b * 52
    (found,) = encoder.encode([first + rest])
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-4)


def test_a_cancelled_request_stops_at_the_next_batch(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "batches_by_length", lambda lengths: batches_by_length(lengths, 1))
    taken = 0

    def compute(step: Callable[[], T], /) -> T:
        nonlocal taken
        if taken == 2:
            raise Cancelled
        taken += 1
        return step()

    with pytest.raises(Cancelled):
        encoder.encode(TEXTS, RunHere(compute))
    assert taken == 2


@given(lengths=st.lists(st.integers(1, 300), max_size=50), most=st.integers(1, 1000))
def test_batches_hold_every_text_once_and_are_bounded(lengths: list[int], most: int) -> None:
    batches = list(batches_by_length(lengths, most))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= most


def test_memory_is_known_before_loading(encoder: Any) -> None:
    bound = memory_bytes(Catalog.read().choose("", "feature-extraction"))
    assert 0.95 * bound <= encoder.nbytes <= bound
