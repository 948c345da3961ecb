"""The Marian engine on its real weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF

from shared.checkpoints.catalog import Catalog, Checkpoint
from shared.engines.compute import RunHere
from shared.engines.firefox.file import MarianFile
from shared.engines.firefox.network import ARCHITECTURE, FloatEmbeddings, Int8Embeddings, Weights
from shared.engines.firefox.reference import TorchFirefoxTranslator, load, memory_bytes
from shared.engines.packed.positions import sinusoids
from shared.engines.pretrained.pieces import batches, split_long
from shared.errors import Cancelled, WeightsCorrupt
from shared.settings import Settings
from tests.shared.engines.steps import Steps

T = TypeVar("T")

EN_PT = [
    ("The house is big.", "A casa é grande."),
    ("Where is the nearest train station?", "Onde fica a estação de trem mais próxima?"),
    ("She bought two apples and a bottle of milk.", "Ela comprou duas maçãs e uma garrafa de leite."),
    ("The children are playing in the garden.", "As crianças estão brincando no jardim."),
    ("The museum opens at nine in the morning and closes at six.", "O museu abre às nove da manhã e fecha às seis."),
    (
        "My brother lives in Lisbon with his wife and three cats.",
        "Meu irmão vive em Lisboa com sua esposa e três gatos.",
    ),
    ("We will travel to Brazil next month.", "Vamos viajar para o Brasil no próximo mês."),
    ("It is raining again.", "Está chovendo de novo."),
]


def checkpoint(checkpoint_id: str) -> Checkpoint:
    return next(checkpoint for checkpoint in Catalog.read() if checkpoint.id == checkpoint_id)


def read(folder: Path, checkpoint_id: str) -> TorchFirefoxTranslator:
    return load(checkpoint(checkpoint_id), folder, Settings.model_validate({}), lambda what, done, total: None)


@pytest.fixture(scope="module")
def en_pt(weights: Callable[[str], Path]) -> TorchFirefoxTranslator:
    return read(weights("firefox-translations-en-pt"), "firefox-translations-en-pt")


@pytest.fixture(scope="module")
def pt_en(weights: Callable[[str], Path]) -> TorchFirefoxTranslator:
    return read(weights("firefox-translations-pt-en"), "firefox-translations-pt-en")


def texts(translator: TorchFirefoxTranslator, sentences: list[str], num_beams: int = 1) -> list[str]:
    return [found.text for found in translator.translate(sentences, num_beams)]


@pytest.mark.parametrize("num_beams", [1, 4])
def test_translates_well_in_both_directions(
    en_pt: TorchFirefoxTranslator, pt_en: TorchFirefoxTranslator, num_beams: int
) -> None:
    """chrF on these sentences; a wrong detail in the network (norm, positions, transposition) halves it."""
    english, portuguese = map(list, zip(*EN_PT, strict=True))
    assert "casa" in texts(en_pt, ["The house is big."], num_beams)[0].lower()
    assert CHRF().corpus_score(texts(en_pt, english, num_beams), [portuguese]).score > 75
    assert CHRF().corpus_score(texts(pt_en, portuguese, num_beams), [english]).score > 75


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_same_alone_and_in_a_batch(en_pt: TorchFirefoxTranslator, num_beams: int) -> None:
    """Neighbours, padding and leaving early do not change a translation.

    Sums in floats do differ in their last digits with the shape of a batch, so a true tie between two
    tokens could still fall either way; the margins of real sentences are 10,000 times larger.
    """
    sentences = [english for english, _ in EN_PT] + ["Yes.", "A dog, a cat, and " * 12 + "a bird."]
    together = en_pt.translate(sentences, num_beams)
    for sentence, found in zip(sentences, together, strict=True):
        (alone,) = en_pt.translate([sentence], num_beams)
        assert (alone.text, alone.new_tokens) == (found.text, found.new_tokens)
        assert alone.log_probability == pytest.approx(found.log_probability, abs=1e-4)
    backwards = texts(en_pt, sentences[::-1], num_beams)
    assert backwards == [found.text for found in together][::-1]


def test_beams_find_likelier_translations(pt_en: TorchFirefoxTranslator) -> None:
    """Per token, what both maximise; on the whole, since a search with few beams may miss a good prefix."""
    sentences = [portuguese for _, portuguese in EN_PT]
    greedy = [found.log_probability for found in pt_en.translate(sentences)]
    beams = [found.log_probability for found in pt_en.translate(sentences, num_beams=4)]
    assert sum(beams) >= sum(greedy) - 1e-3
    assert all(beam >= one - 0.02 for beam, one in zip(beams, greedy, strict=True))


def test_log_probability_is_that_of_the_text(en_pt: TorchFirefoxTranslator) -> None:
    """Forced through the decoder once more, the translation scores what was reported."""
    (found,) = en_pt.translate(["The children are playing in the garden."])
    target = [*en_pt.vocabulary.encode(found.text), 0]
    state = en_pt.network.encode([[*en_pt.vocabulary.encode("The children are playing in the garden."), 0]], beams=1)
    total, token = 0.0, None
    for wanted in target:
        total += float(en_pt.network.step(state, token, None)[0, wanted])
        token = torch.tensor([wanted])
    assert found.new_tokens == len(target)
    assert found.log_probability == pytest.approx(total / len(target), abs=1e-4)


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_blank_is_blank(en_pt: TorchFirefoxTranslator, blank: str) -> None:
    (found,) = en_pt.translate([blank])
    assert (found.text, found.input_tokens, found.new_tokens, found.log_probability) == ("", 0, 0, 0.0)


def test_no_sentences(en_pt: TorchFirefoxTranslator) -> None:
    assert en_pt.translate([]) == []


@pytest.mark.parametrize("text", ["...", "!", "?!", "— —", "🍕", "😊 🍕", "東京", "- 🍕 -"])
def test_what_has_no_words_stays_as_it_is(en_pt: TorchFirefoxTranslator, text: str) -> None:
    assert texts(en_pt, [text], 1) == [text]


def test_emoji_and_foreign_scripts_at_the_ends_are_kept(
    en_pt: TorchFirefoxTranslator, pt_en: TorchFirefoxTranslator
) -> None:
    (text,) = texts(en_pt, ["😊 Good morning 🍕 🍕"])
    assert text.startswith("😊 Bom dia")
    assert text.endswith("🍕 🍕")
    assert texts(pt_en, ["Bom dia 😊"])[0].endswith("😊")


def test_unknown_characters_inside_never_come_out_as_such(en_pt: TorchFirefoxTranslator) -> None:
    for num_beams in (1, 4):
        (text,) = texts(en_pt, ["I love pizza 🍕 so much!"], num_beams)
        assert "pizza" in text
        assert "⁇" not in text


@pytest.mark.parametrize("word", ["A", "Yes", "7", "dog"])
def test_a_single_token(en_pt: TorchFirefoxTranslator, word: str) -> None:
    (found,) = en_pt.translate([word])
    assert found.input_tokens == 2
    assert found.text


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_long_sentence_is_translated_to_its_end(en_pt: TorchFirefoxTranslator, num_beams: int) -> None:
    cities = ["Madrid", "Berlin", "Tokyo", "Cairo", "Chicago"] * 10
    sentence = ", ".join(f"my cousin number {n} lives in {city}" for n, city in enumerate(cities, 1)) + "."
    (found,) = en_pt.translate([sentence], num_beams)
    assert found.input_tokens > 256
    assert [n for n in range(1, 51) if f"número {n} " not in found.text] == []
    assert found.new_tokens < 1.3 * found.input_tokens


def test_a_word_longer_than_the_window(en_pt: TorchFirefoxTranslator) -> None:
    (found,) = en_pt.translate(["x" * 2000])
    assert found.input_tokens > 256


def test_long_text_is_split_after_punctuation() -> None:
    words = ["one", "two", "three,", "four", "five", "six", "seven", "eight", "nine", "ten"]
    ones = [1] * 20
    assert split_long(words, 5, lambda words: ones[: len(words)]) == [
        "one two three,",
        "four five six seven eight",
        "nine ten",
    ]
    assert split_long(words, 10, lambda words: ones[: len(words)]) == [" ".join(words)]
    assert split_long([], 5, lambda words: ones[: len(words)]) == []


def test_a_long_word_is_cut_and_nothing_of_it_lost() -> None:
    pieces = split_long(["hi", "x" * 100, "there"], 9, lambda words: [len(word) for word in words])
    assert all(sum(map(len, piece.split())) <= 9 for piece in pieces)
    assert "".join(pieces).replace(" ", "") == "hi" + "x" * 100 + "there"


@given(lengths=st.lists(st.integers(1, 20), max_size=40), clauses=st.sets(st.integers(0, 39)))
@example(lengths=[1, 1, 18, 18], clauses={1})
def test_no_piece_is_longer_than_the_limit(lengths: list[int], clauses: set[int]) -> None:
    words = ["x" * (n - 1) + ("." if i in clauses else "x") for i, n in enumerate(lengths)]
    pieces = split_long(words, 20, lambda words: [len(word) for word in words])
    assert " ".join(pieces).split() == words
    assert all(len(piece.replace(" ", "")) <= 20 for piece in pieces)


def test_batches_are_bounded_and_complete() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(2, 257, 500)]
    found = list(batches(lengths, 64, 2048))
    assert sorted(place for batch in found for place in batch) == list(range(500))
    for batch in found:
        assert len(batch) <= 64
        assert len(batch) * max(lengths[place] for place in batch) <= 2048


def test_one_long_sentence_does_not_cost_the_short_ones(en_pt: TorchFirefoxTranslator) -> None:
    """Sentences that have ended leave the batch: the steps' lines add up to the tokens written."""
    lines = []
    logits = en_pt.network.embeddings.logits

    def counted(x: torch.Tensor) -> torch.Tensor:
        lines.append(len(x))
        return logits(x)

    sentences = ["Yes.", "No.", "The museum opens at nine in the morning and closes at six in the evening."]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(en_pt.network.embeddings, "logits", counted)
        found = en_pt.translate(sentences)
    assert sum(lines) == sum(one.new_tokens for one in found)


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_stops_within_a_step(en_pt: TorchFirefoxTranslator, num_beams: int, steps: int) -> None:
    compute = Steps(stop_after=steps)
    with pytest.raises(Cancelled):
        en_pt.translate([english for english, _ in EN_PT], num_beams, RunHere(compute))
    assert compute.taken == steps
    assert texts(en_pt, ["The house is big."]) == ["A casa é grande."]


def test_every_token_is_one_step(en_pt: TorchFirefoxTranslator) -> None:
    compute = Steps()
    (found,) = en_pt.translate(["The house is big."], 1, RunHere(compute))
    assert compute.taken == 1 + found.new_tokens


def test_steps_may_run_in_another_thread(en_pt: TorchFirefoxTranslator) -> None:
    """As they do on the compute lane; inference mode is a matter of the thread."""

    def elsewhere(step: Callable[[], T], /) -> T:
        results: list[T] = []
        thread = threading.Thread(target=lambda: results.append(step()))
        thread.start()
        thread.join()
        return results[0]

    for num_beams in (1, 2):
        (found,) = en_pt.translate(["The house is big."], num_beams, RunHere(elsewhere))
        assert found.text == "A casa é grande."


def test_memory_is_known_before_loading(en_pt: TorchFirefoxTranslator) -> None:
    bound = memory_bytes(checkpoint("firefox-translations-en-pt"))
    assert en_pt.nbytes <= bound
    embeddings = en_pt.network.embeddings
    if isinstance(embeddings, Int8Embeddings):
        floats = FloatEmbeddings(embeddings.quants, embeddings.multiplier, embeddings.bias)
        assert en_pt.nbytes - embeddings.nbytes + floats.nbytes <= bound


def test_progress_ends_at_the_whole(weights: Callable[[str], Path]) -> None:
    seen = []
    folder = weights("firefox-translations-pt-en")
    load(
        checkpoint("firefox-translations-pt-en"),
        folder,
        Settings.model_validate({}),
        lambda what, done, total: seen.append((done, total)),
    )
    total = sum((folder / name).stat().st_size for name in ("model.bin", "vocab.spm"))
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)


@pytest.mark.parametrize("broken", ["model.bin", "vocab.spm"])
def test_broken_files_are_refused(weights: Callable[[str], Path], tmp_path: Path, broken: str) -> None:
    folder = weights("firefox-translations-en-pt")
    for name in ("model.bin", "vocab.spm"):
        content = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] if name == broken else content)
    with pytest.raises(WeightsCorrupt, match=broken):
        read(tmp_path, "firefox-translations-en-pt")


def test_another_architecture_is_refused() -> None:
    file = MarianFile({**ARCHITECTURE, "dim-emb": 8, "dec-cell": "gru"}, {}, {})
    with pytest.raises(WeightsCorrupt, match="dec-cell: gru"):
        Weights(file)


def test_a_missing_or_misshapen_tensor_is_refused() -> None:
    config = {**ARCHITECTURE, "dim-emb": 2}
    with pytest.raises(WeightsCorrupt, match="x_ln_scale is missing"):
        Weights(MarianFile(config, {}, {})).norm("x")
    with pytest.raises(WeightsCorrupt, match=r"x_ln_scale is of shape \(1, 3\)"):
        Weights(MarianFile(config, {"x_ln_scale": np.zeros((1, 3), np.float32)}, {})).norm("x")


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="int8 products are used with VNNI only")
def test_int8_embeddings_agree_with_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(-128, 128, (500, 64), dtype=torch.int8, generator=generator)
    bias = torch.randn(500, generator=generator)
    x = torch.randn(7, 64, generator=generator) * torch.tensor([0.0, 1e-3, 1, 1, 10, 100, 1])[:, None]
    int8, floats = Int8Embeddings(integers, 100.0, bias), FloatEmbeddings(integers, 100.0, bias)
    ids = torch.tensor([[0, 3], [499, 7]])
    torch.testing.assert_close(int8.look_up(ids), floats.look_up(ids))
    scale = floats.logits(x).abs().amax(1, keepdim=True)
    assert ((int8.logits(x) - floats.logits(x)).abs() / scale).max() < 2e-4
    extremes = torch.full((2, 64), 5.0), torch.full((3, 64), -128, dtype=torch.int8)
    saturated = Int8Embeddings(extremes[1], 1.0, torch.zeros(3)).logits(extremes[0])
    torch.testing.assert_close(saturated, torch.full((2, 3), -5.0 * 128 * 64))


def test_float_embeddings_translate_alike(en_pt: TorchFirefoxTranslator) -> None:
    embeddings = en_pt.network.embeddings
    if not isinstance(embeddings, Int8Embeddings):
        pytest.skip("this processor uses float32 anyway")
    sentences = [english for english, _ in EN_PT]
    expected = texts(en_pt, sentences)
    with pytest.MonkeyPatch.context() as patch:
        floats = FloatEmbeddings(embeddings.quants, embeddings.multiplier, embeddings.bias)
        patch.setattr(en_pt.network, "embeddings", floats)
        assert texts(en_pt, sentences) == expected


def test_positions_are_sines_then_cosines() -> None:
    """The first row is sin 0 and cos 0; rates fall from 1 to 1/10,000."""
    table = sinusoids(3, 4)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(
        table[2],
        torch.tensor([2.0, 2e-4, 2.0, 2e-4])
        .sin()
        .where(torch.tensor([True, True, False, False]), torch.tensor([2.0, 2e-4, 2.0, 2e-4]).cos()),
    )
