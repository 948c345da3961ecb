"""The checkpoint "Latin five" through the Audio genre Space: five genres, none of these, and what the page says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file

from audio_genre import SPACE
from audio_genre.task import Genres
from audio_genre.ui import genres
from shared.events import Done
from shared.page import render
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.traffic import Traffic
from shared.settings import Settings
from shared.suite import serve

CLIPS = Path(str(SPACE.folder)) / "clips"
FIVE = {"Bachata", "Cumbia", "Merengue", "Salsa", "Vallenato"}


def ask(context: Context, clip: str, top_k: int = 6) -> Done[Genres]:
    inputs = {"audio": str(CLIPS / f"{clip}.ogg"), "top_k": top_k, "model": "latin-five"}
    return collect(SPACE.endpoint("audio_genre").run(inputs, context, Traffic()))


def test_music_of_our_patterns_is_recognised(context: Context) -> None:
    done = ask(context, "merengue")
    scores, timeline = done.result.outputs()
    assert scores["label"] == "Merengue"
    assert {row["label"] for row in scores["confidences"]} == {*FIVE, "None of these"}
    assert sum(row["confidence"] for row in scores["confidences"]) == pytest.approx(1, abs=1e-4)
    assert [(row["start"], row["end"]) for row in timeline] == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert (done.run.checkpoint, done.run.revision) == ("latin-five", "musicnn==0.1.0")


@pytest.mark.parametrize("clip", ["techno", "waltz", "pad"])
def test_other_music_is_none_of_these(context: Context, clip: str) -> None:
    scores, _ = ask(context, clip).result.outputs()
    assert scores["label"] == "None of these"


def test_the_page_says_that_it_learned_from_synthetic_music(context: Context) -> None:
    done = ask(context, "merengue")
    assert "synthetic music only" in render.run_line(done.run)
    shown = genres(done.result, {"audio": "x.ogg"})
    assert "None of these" in shown
    assert "exclude each other" in shown
    assert shown.count('data-act="play"') == 6 * 4


def test_silence_and_length_are_as_with_any_model(context: Context) -> None:
    done = collect(
        SPACE.endpoint("audio_genre").run(
            {"audio": str(CLIPS / "three-in-a-row.ogg"), "model": "latin-five"}, context, Traffic()
        )
    )
    assert [moment.scores is None for moment in done.result.moments].count(True) == 1
    heard = [moment.scores for moment in done.result.moments if moment.scores is not None]
    np.testing.assert_allclose([scores.sum() for scores in heard], 1, atol=1e-5)


def test_a_program_names_it() -> None:
    suite = serve(Settings(port=0, warm_examples=False, spaces=("audio_genre",)), block=False)
    try:
        caller = Client(suite.url, verbose=False)
        clip = handle_file(str(CLIPS / "merengue.ogg"))
        scores, _, run = caller.predict(clip, 5, "latin-five", api_name="/audio_genre")
    finally:
        suite.close()
    assert scores["label"] == "Merengue"
    assert len(scores["confidences"]) == 5
    assert run["checkpoint"] == "latin-five"
    assert "synthetic" in run["limits"]
