"""Translation keeps the shape of a text, says when the language is wrong, and names the pairs there are."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from shared.errors import Cancelled, InvalidInput, UnknownCheckpoint
from shared.events import Done, Partial, Running, result_of
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.traffic import Traffic
from translation import SPACE, task
from translation.task import Translate, Translation, borrow, detected_source, rows

R = TypeVar("R")

LETTER = """\
  The house is big.  It is raining again.

\tDear Helena,
Where is the nearest train station?


The children are playing in the garden.
"""


def ask(context: Context, **values: Any) -> Done[Translation]:
    return collect(SPACE.endpoint("translate").run(values, context, Traffic()))


def test_english_to_portuguese_and_back(context: Context) -> None:
    there = ask(context, text="The house is big.")
    assert there.result.text == "A casa é grande."
    assert there.run.checkpoint == "firefox-translations-en-pt"
    back = ask(context, text="Está chovendo de novo.", src_lang="pt", tgt_lang="en")
    assert back.result.text == "It's raining again."
    assert back.run.checkpoint == "firefox-translations-pt-en"
    assert there.result.warning == back.result.warning == ""
    assert there.run.input_tokens > 0
    assert there.run.new_tokens > 0


def test_paragraphs_blanks_and_line_ends_are_kept(context: Context) -> None:
    found = ask(context, text=LETTER).result
    assert found.text == (
        f"  {found.alignment[0].target}  {found.alignment[1].target}\n\n\t{found.alignment[2].target}\n"
        f"{found.alignment[3].target}\n\n\n{found.alignment[4].target}\n"
    )
    assert found.alignment[0].target == "A casa é grande."
    assert found.alignment[4].target == "As crianças estão brincando no jardim."


def test_every_sentence_is_aligned_with_its_source(context: Context) -> None:
    found = ask(context, text=LETTER).result
    assert [pair.source.text for pair in found.alignment] == [
        "The house is big.",
        "It is raining again.",
        "Dear Helena,",
        "Where is the nearest train station?",
        "The children are playing in the garden.",
    ]
    for pair in found.alignment:
        assert LETTER[pair.source.start : pair.source.end] == pair.source.text
        assert pair.target
        assert pair.log_probability < 0


def test_beams_are_honoured(context: Context) -> None:
    text = "Every morning I walk to work along the river, and it takes me half an hour."
    unsaid, one, four = (ask(context, text=text, num_beams=n).result.alignment[0] for n in (0, 1, 4))
    assert unsaid == one, "a Firefox model says nothing of beams"
    assert four.log_probability >= one.log_probability - 1e-3
    assert four.target


def test_a_long_text_shows_progress_and_what_is_done(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "SENTENCES_PER_STEP", 2)
    events = list(SPACE.endpoint("translate").run({"text": LETTER}, context, Traffic()))
    assert [(e.done, e.total) for e in events if isinstance(e, Running)] == [(0, 5), (2, 5), (4, 5)]
    texts = [event.result.text for event in events if isinstance(event, Partial)]
    done = events[-1]
    assert isinstance(done, Done)
    assert len(texts) == 2
    assert all(done.result.text.startswith(text) for text in texts)
    monkeypatch.undo()
    assert ask(context, text=LETTER).result.text == done.result.text


def test_a_stop_ends_the_translation(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "SENTENCES_PER_STEP", 1)
    events = SPACE.endpoint("translate").run({"text": LETTER}, context, Traffic())
    while not isinstance(next(events), Partial):
        continue
    context.cancel.set()
    with pytest.raises(Cancelled):
        list(events)
    assert all(row["borrows"] == 0 for row in context.runtime.cache.report()["checkpoints"])


def test_a_text_in_another_language_is_translated_with_a_warning(context: Context) -> None:
    portuguese = "O ônibus atrasou quase uma hora por causa da chuva, e a lanchonete já estava fechada."
    warning = ask(context, text=portuguese).result.warning
    assert warning.startswith("This text looks like Portuguese (pt), not English (en).")
    assert ask(context, text=portuguese, src_lang="pt", tgt_lang="en").result.warning == ""


@pytest.mark.parametrize("text", ["OK", "Geneva", "12345", "Hello!"])
def test_a_text_too_short_to_tell_gets_no_warning(context: Context, text: str) -> None:
    assert ask(context, text=text).result.warning == ""


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({"src_lang": "tlh", "tgt_lang": "pt"}, "src_lang", "no checkpoint here translates tlh→pt; the pairs are en"),
        ({"src_lang": "tlh"}, "src_lang", "no checkpoint here translates from 'tlh'; the pairs are en→pt, pt→en"),
        ({"tgt_lang": "tlh"}, "tgt_lang", "en→tlh"),
        # A pair for which there is a checkpoint, but on a Hub that is not there:
        ({"tgt_lang": "es"}, "", "translation from en to es needs Helsinki-NLP/opus-mt-en-es, which cannot be used"),
        ({"tgt_lang": "yi"}, "", "needs alirezamsh/small100"),
        ({"src_lang": "xx", "tgt_lang": "yy"}, "src_lang", "xx→yy"),
        ({"src_lang": "", "tgt_lang": "pt"}, "src_lang", "pairs are"),
        ({"src_lang": "", "tgt_lang": ""}, "src_lang", "translates from ''; the pairs are"),
        # Left open, the target is one that the source has, here or else on a Hub:
        ({"src_lang": "es"}, "", "translation from es to en needs Helsinki-NLP/opus-mt-es-en, which cannot be used"),
        ({"src_lang": "hi"}, "", "translation from hi to en needs alirezamsh/small100, which cannot be used"),
        ({"model": "firefox-translations-pt-en"}, "model", "does not do translation from en to pt"),
        ({"model": "all-MiniLM-L6-v2"}, "model", "does not do translation"),
    ],
)
def test_a_pair_that_is_not_there_is_refused_by_name(
    context: Context, values: dict[str, str], field: str, said: str
) -> None:
    with pytest.raises(UnknownCheckpoint, match=said) as caught:
        ask(context, text="Hello there.", **values)
    assert caught.value.field == field


def test_two_times_the_same_language_is_refused(context: Context) -> None:
    with pytest.raises(InvalidInput, match="'pt', and so is src_lang"):
        ask(context, text="Hello there.", src_lang="pt", tgt_lang="PT")


def test_language_codes_are_read_kindly(context: Context) -> None:
    assert ask(context, text="The house is big.", src_lang=" EN", tgt_lang="Pt ").result.text == "A casa é grande."


def test_texts_together_are_translated_as_alone(context: Context) -> None:
    texts = [LETTER, "O ônibus atrasou quase uma hora por causa da chuva.", "It is raining again."]
    requests = [Translate.model_validate({"text": text}) for text in texts]
    with result_of(borrow(requests[0], context)) as lease:
        found = list(rows(requests, lease))
    alone = [ask(context, text=text).result for text in texts]
    assert [f.text for f in found] == [a.text for a in alone]
    assert [f.warning for f in found] == [a.warning for a in alone]
    assert [bool(f.warning) for f in found] == [False, True, False]
    assert found[2].row() == {"translation": alone[2].text}


def test_a_target_that_is_left_open_is_the_first_there_is(context: Context) -> None:
    there = ask(context, text="The house is big.")
    assert there.result.pair == ("en", "pt")
    back = ask(context, text="Está chovendo de novo.", src_lang="pt")
    assert (back.result.pair, back.result.text) == (("pt", "en"), "It's raining again.")
    detected = ask(context, text="Onde fica a estação de comboios mais próxima?", src_lang="auto")
    assert detected.result.pair == ("pt", "en")
    assert detected.run.warning == "The text was taken for Portuguese (pt)."
    # Rows are translated from one language into one, which is found once for all.
    requests = [Translate.model_validate({"text": text, "src_lang": "pt"}) for text in ("Bom dia.", "Boa noite.")]
    with result_of(borrow(requests[0], context)) as lease:
        found = list(rows(requests, lease))
    assert [(f.pair, f.text) for f in found] == [(("pt", "en"), "Good morning."), (("pt", "en"), "Good night.")]


def test_markup_is_text(context: Context) -> None:
    assert "<script>" in ask(context, text="The house is big.\n<script>").result.alignment[1].source.text


def test_examples_of_the_space_are_valid(context: Context) -> None:
    for example in SPACE.examples["translate"]:
        Translate.model_validate(example["inputs"], context={"settings": context.settings})


def test_the_source_language_is_detected_on_request(context: Context) -> None:
    done = ask(context, text="Onde fica a estação de comboios mais próxima?", src_lang="auto", tgt_lang="en")
    assert "station" in done.result.text
    assert done.run.checkpoint == "firefox-translations-pt-en"
    assert done.run.warning == "The text was taken for Portuguese (pt)."


def test_a_text_in_the_target_language_already_is_said_to_be(context: Context) -> None:
    with pytest.raises(InvalidInput, match="'pt', and the text was taken for Portuguese") as caught:
        ask(context, text="Onde fica a estação de comboios mais próxima?", src_lang="auto", tgt_lang="pt")
    assert caught.value.field == "tgt_lang"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("जीवन एक चॉकलेट बॉक्स की तरह है।", "hi"),
        ("生活就像一盒巧克力。", "zh"),
        ("החיים כמו קופסה של שוקולדים", "he"),
    ],
)
def test_the_languages_of_the_course_are_detected(text: str, language: str) -> None:
    assert detected_source(Translate.model_validate({"text": text, "src_lang": "auto"})).src_lang == language
