"""The fast encoder-decoder engine: its networks against transformers, texts in company, and where it cannot be used.

What it writes beside its reference is in `test_seq2seq`.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, T5Config
from transformers.models.t5.modeling_t5 import T5Attention

from shared.engines.compute import run_here
from shared.engines.pretrained.loading import WEIGHTS
from shared.engines.protocols import Sampling
from shared.engines.seq2seq import batched, translating
from shared.engines.seq2seq.architectures import architecture_of
from shared.engines.seq2seq.batched_engine import BatchedSeq2Seq
from shared.engines.seq2seq.decoding import Drawn
from shared.engines.seq2seq.network import Line, Seq2SeqNetwork
from shared.engines.seq2seq.reference import TorchSeq2Seq
from shared.engines.seq2seq.t5 import buckets_of
from shared.errors import Cancelled
from shared.scheduling.lane import Lane
from shared.settings import Settings
from tests.shared.engines.decoders.test_batched import SOON, Turns
from tests.shared.engines.packed.test_weights import quantised
from tests.shared.engines.seq2seq.test_reference import KINDS, PAIR, SENTENCES, about, read
from tests.tiny_checkpoints import seq2seq as tiny

PUBLISHED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "fp32": lambda weight: weight,
    "bf16": lambda weight: weight.bfloat16().float(),
    "int8": lambda weight: quantised(weight, 16, 15),
}
"""What a publisher did to the weights, by the engine's name for how it keeps them."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("seq2seq")
    for kind in KINDS:
        getattr(tiny, kind)(root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane(2, width=2)
    yield lane
    lane.close()


@pytest.fixture(autouse=True)
def short_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translating, "MAX_LENGTH_FACTOR", 0.4)
    monkeypatch.setattr(translating, "LENGTH_MARGIN", 6)


@pytest.fixture(scope="module", params=["t5", "flan_t5", "marian", "m2m100"])
def fast(folders: dict[str, Path], request: pytest.FixtureRequest) -> BatchedSeq2Seq:
    return read(request.param, folders[request.param], "batched")


# -- networks ----------------------------------------------------------------------------------------


def modest(model: Any, form: str = "fp32") -> Any:
    """Weights under which rounding stays what it is, and norms and biases of every kind take part."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "embed_positions" in name:
            continue
        if parameter.dim() == 2:
            parameter.data = PUBLISHED[form](torch.randn(parameter.shape) * (0.7 if "relative" in name else 0.2))
        else:
            parameter.data = torch.rand(parameter.shape) + 0.5 * ("bias" not in name)
    for name, buffer in model.named_buffers():
        if name == "final_logits_bias":
            buffer.copy_(torch.randn(buffer.shape))
    return model.eval()


def network_of(model: Any, longest: int = 200) -> Seq2SeqNetwork:
    found = architecture_of(model.config)
    assert found is not None
    network, shape = found
    return network(network.pack(model.state_dict(), shape), shape, longest)


def logits(network: Seq2SeqNetwork, source: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """After each of the tokens; beside a line that is longer by some."""
    mine, other = (Line(read, network.new_cache(len(tokens) + 3), 5) for read in network.read([source, [7] * 70]))
    for _ in range(3):
        network.write([other])
    found = []
    for token in tokens:
        mine.newest = token
        found.append(network.write([other, mine])[1])
    return torch.stack(found)


@pytest.mark.parametrize("form", PUBLISHED)
@pytest.mark.parametrize("kind", ["t5", "flan_t5", "marian", "m2m100"])
def test_logits_are_those_of_transformers_in_float32(folders: dict[str, Path], kind: str, form: str) -> None:
    """Sources and texts of one token and of more than a vector's; distances beyond T5's max_distance."""
    model = modest(AutoModelForSeq2SeqLM.from_pretrained(folders[kind]), form)
    network = network_of(model)
    assert network.number_format == form
    for length in (1, 9, 150):
        source, tokens = ([(step * i) % 131 + 3 for i in range(length)] for step in (7, 11))
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([tokens])).logits[0]
        near = float(expected.abs().max()) * (2e-3 if form == "int8" else 2e-5)
        torch.testing.assert_close(logits(network, source, tokens), expected, atol=near, rtol=0)


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_distances_are_t5s(buckets: int, max_distance: int, both_ways: bool) -> None:
    distances = torch.arange(-600, 601 if both_ways else 1)
    theirs = T5Attention._relative_position_bucket(distances, both_ways, buckets, max_distance)
    assert torch.equal(buckets_of(distances, buckets, max_distance, both_ways=both_ways), theirs)


def test_a_padding_token_that_is_written_has_no_place(folders: dict[str, Path]) -> None:
    """M2M100 counts places from behind its padding token's number, and gives that token none."""
    model = modest(AutoModelForSeq2SeqLM.from_pretrained(folders["m2m100"]))
    network, pad = network_of(model), model.config.pad_token_id
    line = Line(network.read([[9, 8]])[0], network.new_cache(4), 2)
    found = []
    for token in (2, 5, pad, 6):
        line.newest = token
        found.append(network.write([line])[0])
    cache = None
    for token, mine in zip((2, 5, pad, 6), found, strict=True):
        with torch.inference_mode():
            given: Any = {"input_ids": torch.tensor([[9, 8]]), "decoder_input_ids": torch.tensor([[token]])}
            output = model(**given, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        torch.testing.assert_close(mine, output.logits[0, -1], atol=1e-4, rtol=1e-4)


def test_tokens_and_places_that_there_are_not_are_refused(fast: BatchedSeq2Seq) -> None:
    """Compiled code would read what lies behind the matrix."""
    network = fast.writer.network
    for source in ([3, network.shape.vocabulary], [-1], [5] * (network.longest + 1)):
        with pytest.raises(IndexError):
            network.read([source])
    line = Line(network.read([[5]])[0], network.new_cache(1), 5)
    network.write([line])
    with pytest.raises(IndexError, match="longer than its cache"):
        network.write([line])


def test_the_longest_source_and_text_fit(fast: BatchedSeq2Seq) -> None:
    network = fast.writer.network
    line = Line(network.read([[5] * 512])[0], network.new_cache(512), 5, 511)
    line.cache[:] = 0
    assert torch.isfinite(network.write([line])).all()


# -- together ----------------------------------------------------------------------------------------


def ask(engine: BatchedSeq2Seq, number: int, compute: Any = run_here) -> Any:
    """Requests of every kind: drawn, greedy and with beams, short and long."""
    text = SENTENCES[number % len(SENTENCES)]
    if number % 4 == 0:
        sampling = Sampling(30, True, 1.3, 40, seed=number)
        return [(t.id, t.probability) for t in engine.generate(engine.tokenize(text), sampling, compute)]
    if number % 4 == 1:
        return engine.translate([text, "Yes."], 1, compute, pair=PAIR)
    if number % 4 == 2:
        return engine.translate([text], 3, compute, pair=PAIR)
    return engine.beam_search(engine.tokenize(text), 5 + number, 2, compute)


def test_a_text_is_the_same_alone_and_in_company(
    fast: BatchedSeq2Seq, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: sources of other lengths beside it, lines joining and leaving."""
    alone = [ask(fast, number) for number in range(12)]
    network, sizes, read_with = fast.writer.network, [], []
    write = network.write

    def noted(lines: Sequence[Line]) -> torch.Tensor:
        sizes.append(len(lines))
        read_with.append(len({line.length for line in lines}))
        return write(lines)

    monkeypatch.setattr(network, "write", noted)
    with ThreadPoolExecutor(12) as threads:
        begun = [threads.submit(ask, fast, n, Turns(lane, f"visitor {n}")) for n in range(12)]
        together = [one.result(SOON) for one in begun]
    assert together == alone
    assert max(sizes) > 3
    assert max(read_with) > 1, "lines of other ages side by side"


@pytest.mark.parametrize("bound", [("STEP_LINES", 3), ("STEP_TOKENS", 5)], ids=str)
def test_smaller_steps_change_nothing(
    fast: BatchedSeq2Seq, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int]
) -> None:
    expected = [fast.translate(SENTENCES, beams, pair=PAIR) for beams in (1, 3)]
    monkeypatch.setattr(f"shared.engines.seq2seq.decoding.{bound[0]}", bound[1])
    monkeypatch.setattr("shared.engines.seq2seq.batched_engine.HELD_TOKENS", 50)
    assert [fast.translate(SENTENCES, beams, pair=PAIR) for beams in (1, 3)] == expected


def test_each_source_is_read_once_and_what_ended_costs_nothing(
    fast: BatchedSeq2Seq, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, sources, lines = fast.writer.network, [], []
    write, read_sources = network.write, network.read
    monkeypatch.setattr(network, "write", lambda some: (lines.append(len(some)), write(some))[1])
    monkeypatch.setattr(network, "read", lambda some: (sources.extend(some), read_sources(some))[1])
    found = fast.translate(SENTENCES, pair=PAIR)
    assert sorted(map(len, sources)) == sorted(one.input_tokens for one in found)
    assert sum(lines) == sum(one.new_tokens for one in found)
    assert lines[0] == len(SENTENCES)


def test_one_who_leaves_and_one_who_fails_harm_nobody(
    fast: BatchedSeq2Seq, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {n: ask(fast, n) for n in range(8)}
    cancel, consume = threading.Event(), Drawn.consume

    def failing(self: Drawn, logits: torch.Tensor) -> Any:
        if self._sampling.seed == 4:
            raise RuntimeError("this text alone")
        if self._sampling.seed == 0:
            cancel.set()
        return consume(self, logits)

    monkeypatch.setattr(Drawn, "consume", failing)

    def answer(n: int) -> Any:
        try:
            return ask(fast, n, Turns(lane, f"visitor {n}", cancel if n == 0 else None))
        except (Cancelled, RuntimeError) as error:
            return type(error)

    with ThreadPoolExecutor(8) as threads:
        answers = [one.result(SOON) for one in [threads.submit(answer, n) for n in range(8)]]
    assert answers[0] is Cancelled
    assert answers[4] is RuntimeError
    assert [answers[n] for n in range(8) if n % 4] == [expected[n] for n in range(8) if n % 4]


def test_a_reader_who_wants_no_more_ends_the_text(
    fast: BatchedSeq2Seq, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a page is closed between two tokens: the text leaves at its next step."""
    steps: list[int] = []
    write = fast.writer.network.write
    monkeypatch.setattr(fast.writer.network, "write", lambda lines: (steps.append(1), write(lines))[1])
    monkeypatch.setattr(fast.rules, "ends", [-1])  # nothing ends it but its reader
    sampling = Sampling(400, True, 3.0, seed=1)
    tokens = fast.generate(fast.tokenize(SENTENCES[0]), sampling, Turns(lane, "visitor"))
    next(tokens)
    tokens.close()  # pyright: ignore[reportAttributeAccessIssue] - it is a generator
    lane.close()
    assert len(steps) < 400


@pytest.mark.parametrize("sampling", [Sampling(24, True), Sampling(24, True, 1.7, 20, 0.9, 1.2)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_text_on_both_engines(folders: dict[str, Path], kind: str, sampling: Sampling) -> None:
    fast, slow = (read(kind, folders[kind], form) for form in ("batched", "reference"))
    source = fast.tokenize(SENTENCES[0])
    ours, theirs = (list(engine.generate(source, sampling)) for engine in (fast, slow))
    assert [(one.id, one.text) for one in ours] == [(one.id, one.text) for one in theirs]
    assert [one.probability for one in ours] == pytest.approx([one.probability for one in theirs], abs=1e-3)


# -- loading -----------------------------------------------------------------------------------------


def load(folder: Path, settings: Settings, **changes: Any) -> Any:
    return batched.load(about(changes.pop("kind", "t5"), **changes), folder, settings, lambda *_: None)


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return Settings.model_validate({"cache_dir": tmp_path / "cache"})


def test_weights_are_converted_once_and_mapped(folders: dict[str, Path], own: Settings) -> None:
    engine = load(folders["t5"], own)
    assert engine.name == "compiled-fp32"
    (written,) = (path for path in own.converted_dir.glob("*-kernels*") if path.is_dir())
    before = (written / WEIGHTS).stat().st_mtime_ns
    assert load(folders["t5"], own).translate(SENTENCES[:2], pair=PAIR) == engine.translate(SENTENCES[:2], pair=PAIR)
    assert (written / WEIGHTS).stat().st_mtime_ns == before
    (written / WEIGHTS).unlink()  # and not written over, since it is mapped
    (written / WEIGHTS).write_bytes(b"damaged")
    assert load(folders["t5"], own).translate(SENTENCES[:2], pair=PAIR) == engine.translate(SENTENCES[:2], pair=PAIR)
    # Of real widths: beside 32 inputs, scales and mins take a sixteenth.
    assert batched.memory_bytes(engine.checkpoint) == 404_000


def test_it_is_prepared_without_being_asked_for_anything(folders: dict[str, Path], own: Settings) -> None:
    ready = batched.prepare(about("t5"), folders["t5"], own, lambda *_: None)
    assert (ready / WEIGHTS).is_file()
    assert batched.published(about("t5"), folders["t5"], own, lambda *_: None) == folders["t5"]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("t5", {"feed_forward_proj": "tanh"}),
        ("marian", {"activation_function": "tanh"}),
        ("m2m100", {"activation_function": "tanh"}),
    ],
)
def test_what_is_not_written_down_is_the_references(
    folders: dict[str, Path], own: Settings, tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / kind)
    config = json.loads((folder / "config.json").read_text())
    config.pop("dense_act_fn", None)
    (folder / "config.json").write_text(json.dumps(config | changes))
    engine = load(folder, own, kind=kind)
    assert isinstance(engine, TorchSeq2Seq)
    assert batched.prepare(about(kind), folder, own, lambda *_: None) == folder
    assert not own.converted_dir.exists()
    assert engine.translate(SENTENCES[:1], pair=PAIR)[0].new_tokens


def test_the_reference_answers_where_it_is_set(folders: dict[str, Path], own: Settings) -> None:
    plain = own.model_copy(update={"engines": "reference"})
    assert isinstance(load(folders["t5"], plain), TorchSeq2Seq)
    assert not own.converted_dir.exists()


def test_a_tied_output_is_kept_once_and_another_beside_it(folders: dict[str, Path]) -> None:
    """transformers does not tie the two where a file holds both and they differ, as FLAN-T5's does."""
    model = modest(AutoModelForSeq2SeqLM.from_pretrained(folders["flan_t5"]))
    tied = network_of(model)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
    network, source, tokens = network_of(model), [5, 6, 7], [0, 9, 8]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(logits(network, source, tokens), expected, atol=1e-3, rtol=1e-4)
    assert network.nbytes > tied.nbytes + model.lm_head.weight.nbytes


def test_odd_sizes_are_left_to_the_reference() -> None:
    odd: list[dict[str, Any]] = [{"d_kv": 6}, {"d_ff": 30}, {"d_model": 30}]
    for changes in odd:
        assert architecture_of(T5Config(**changes)) is None
    assert architecture_of(T5Config()) is not None


def test_quants_stay_integers(folders: dict[str, Path], own: Settings, tmp_path: Path) -> None:
    """A checkpoint whose weights lie on levels takes a quarter of the bytes."""
    model = modest(AutoModelForSeq2SeqLM.from_pretrained(folders["m2m100"]), "int8")
    folder = shutil.copytree(folders["m2m100"], tmp_path / "int8")
    model.save_pretrained(folder)
    engine = load(folder, own, kind="m2m100")
    assert engine.name == "compiled-int8"
    assert engine.writer.network.output._matrix.matrix.quants.dtype == np.int8
