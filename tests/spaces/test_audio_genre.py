"""Genres of recordings: on the real embedded networks, and on a tiny wav2vec 2.0 with a softmax."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from audio_genre import SPACE
from audio_genre.picture import MOST_COLUMNS, Picture
from audio_genre.task import AudioGenre, Genres, listen
from audio_genre.ui import MOST_SEGMENTS, best_rows, genres, segments
from shared.engines.audio import audio_classifier
from shared.engines.compute import run_here
from shared.errors import Cancelled, InvalidInput, UnknownCheckpoint
from shared.events import Done, Partial, RunInfo
from shared.media.recordings import Recording, Window
from shared.page import snippets
from shared.serving.context import Context
from shared.serving.endpoint import collect
from shared.serving.runtime import Runtime, start
from shared.serving.traffic import Traffic
from shared.settings import Settings
from shared.suite import Suite, serve
from tests.recordings import REFUSED, broken, endless_flac, tone, write
from tests.tiny_checkpoints.encoders import wav2vec2_genres
from tests.tiny_checkpoints.entry import entry

CLIPS = Path(str(SPACE.folder)) / "clips"


def ask(context: Context, audio: Path | str, **values: Any) -> Done[Genres]:
    return collect(SPACE.endpoint("audio_genre").run({"audio": str(audio), **values}, context, Traffic()))


# -- what it hears -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip", "best"), [("techno", {"techno", "electronic"}), ("waltz", {"jazz", "classical"}), ("pad", {"ambient"})]
)
def test_the_clips_sound_like_what_they_are(context: Context, clip: str, best: set[str]) -> None:
    done = ask(context, CLIPS / f"{clip}.ogg", top_k=3)
    scores, timeline = done.result.outputs()
    assert {row["label"] for row in scores["confidences"][: len(best)]} == best
    assert scores["label"] == scores["confidences"][0]["label"]
    assert len(scores["confidences"]) == 3
    assert [(row["start"], row["end"]) for row in timeline] == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert done.run.checkpoint == "musicnn"
    assert done.run.warning == ""


def test_over_time_and_without_the_silence(context: Context) -> None:
    events = list(SPACE.endpoint("audio_genre").run({"audio": str(CLIPS / "three-in-a-row.ogg")}, context, Traffic()))
    done = events[-1]
    assert isinstance(done, Done)
    scores, timeline = done.result.outputs()
    best = [None if row["silent"] else row["confidences"][0]["label"] for row in timeline]
    assert best[:4] == ["techno"] * 4
    assert set(best[4:8]) == {"jazz"}
    assert best[8] is None
    assert set(best[9:]) == {"ambient"}
    assert timeline[-1]["end"] == pytest.approx(39.6, abs=0.1)
    assert all(later["start"] == earlier["end"] for earlier, later in pairwise(timeline))
    # The mean of what was heard, so silence does not count.
    heard = [moment for moment in done.result.moments if moment.scores is not None]
    weights = [moment.end - moment.start for moment in heard]
    mean = np.average([moment.scores for moment in heard if moment.scores is not None], axis=0, weights=weights)
    np.testing.assert_allclose(done.result.scores, mean, atol=1e-6)
    assert scores["confidences"][0]["confidence"] == pytest.approx(mean.max(), abs=1e-6)
    # Independent sigmoids: no softmax over them.
    assert sum(moment.scores.sum() for moment in heard) / len(heard) != pytest.approx(1, abs=0.01)
    parts = [event.result for event in events if isinstance(event, Partial)]
    assert [len(part.moments) for part in parts] == [4, 8, 12, 14]
    assert {part.expected for part in parts} == {14}


def test_a_tiny_wav2vec2_shares_one_whole(tmp_path: Path, context: Context) -> None:
    """The course's kind of checkpoint through the same task: 1 s windows and a softmax."""
    folder = wav2vec2_genres(tmp_path)
    checkpoint = entry(kind="audio-classifier", engine="audio.audio_classifier", tasks=["audio-classification"])
    engine = audio_classifier.load(checkpoint, folder, Settings(), lambda *_: None)
    lease: Any = SimpleNamespace(
        audio_classifier=lambda: engine,
        checkpoint=checkpoint,
        compute=run_here,
        run_info=lambda **said: RunInfo(checkpoint="tiny", revision="", engine=engine.name, **said),
    )
    path = write(tmp_path / "a.wav", tone(3.5))
    with Recording(path, 60) as recording:
        done = collect(listen(AudioGenre(audio=str(path), top_k=5), recording, lease))
    scores, timeline = done.result.outputs()
    assert not done.result.multi_label
    assert sum(row["confidence"] for row in scores["confidences"]) == pytest.approx(1, abs=1e-4)
    assert {row["label"] for row in scores["confidences"]} == {"Bachata", "Cumbia", "Merengue", "Salsa", "Vallenato"}
    assert [(row["start"], row["end"]) for row in timeline] == [(0, 1), (1, 2), (2, 3), (3, 3.5)]
    assert "exclude each other" in genres(done.result, {})


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_recording_is_refused(context: Context, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(context, broken(tmp_path)[name])
    assert caught.value.field == "audio"
    assert REFUSED[name] in caught.value.message


def test_silence_is_said(context: Context, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="silent from beginning to end") as caught:
        ask(context, write(tmp_path / "a.flac", 0 * tone(7)))
    assert caught.value.field == "audio"


def test_a_long_recording_is_heard_to_the_limit(tmp_path: Path) -> None:
    runtime = start(Settings(max_audio_seconds=30))
    try:
        with pytest.raises(InvalidInput, match="silent"):
            ask(Context(runtime), endless_flac(tmp_path / "bomb.flac", 5, claimed=True))
        done = ask(Context(runtime), write(tmp_path / "long.wav", np.tile(tone(1, 8000), 40), 8000))
    finally:
        runtime.lane.close()
        runtime.cache.close()
    assert done.run.warning == "Only the first 0:30 were heard (SUITE_MAX_AUDIO_SECONDS)."
    assert len(done.result.moments) == 10


def test_damage_and_clipping_are_warnings(context: Context, tmp_path: Path) -> None:
    mp3 = write(tmp_path / "a.mp3", tone(8)).read_bytes()
    (tmp_path / "a.mp3").write_bytes(mp3[: len(mp3) // 2])
    assert "cut short" in ask(context, tmp_path / "a.mp3").run.warning
    assert "clipped" in ask(context, write(tmp_path / "b.wav", 9 * tone(3))).run.warning


def test_other_inputs_name_their_field(context: Context, tmp_path: Path) -> None:
    clip = CLIPS / "pad.ogg"
    for values, field in (
        ({"top_k": 0}, "top_k"),
        ({"top_k": 51}, "top_k"),
        ({"audio": ""}, "audio"),
        ({"audio": None}, "audio"),
        ({"audio": str(tmp_path / "gone.wav")}, "audio"),
        ({"audio": "a\0b"}, "audio"),
    ):
        with pytest.raises(InvalidInput) as caught:
            collect(SPACE.endpoint("audio_genre").run({"audio": str(clip), **values}, context, Traffic()))
        assert caught.value.field == field
    with pytest.raises(UnknownCheckpoint, match="does not do audio-classification"):
        ask(context, clip, model="all-MiniLM-L6-v2")
    runtime = start(Settings(max_audio_upload=1000))
    try:
        with pytest.raises(InvalidInput, match="SUITE_MAX_AUDIO_UPLOAD"):
            ask(Context(runtime), clip)
    finally:
        runtime.lane.close()
        runtime.cache.close()


def test_stop_ends_it_between_two_windows(runtime: Runtime, tmp_path: Path) -> None:
    context = Context(runtime, "test/stop")
    path = write(tmp_path / "a.wav", np.tile(tone(1, 8000), 600), 8000)
    events = SPACE.endpoint("audio_genre").run({"audio": str(path)}, context, Traffic())
    for event in events:
        if isinstance(event, Partial):
            context.cancel.set()
            break
    with pytest.raises(Cancelled):
        next(events)


# -- through the front door ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone() -> Iterator[Suite]:
    running = serve(Settings(port=0, warm_examples=False, spaces=("audio_genre",)), block=False)
    yield running
    running.close()


@pytest.fixture(scope="module")
def caller(alone: Suite) -> Client:
    return Client(alone.url, verbose=False)


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.flac", "a.ogg"])
def test_a_program_sends_a_file(caller: Client, tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, np.repeat(tone(4)[:, None], 2, axis=1))
    scores, timeline, run = caller.predict(handle_file(str(file)), 5, "", api_name="/audio_genre")
    assert len(scores["confidences"]) == 5
    assert [row["end"] for row in timeline] == [3, pytest.approx(4, abs=0.1)]
    assert run["checkpoint"] == "musicnn"


def test_progress_is_seen_on_the_way(caller: Client, tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", np.tile(tone(1, 8000), 36), 8000)
    job = caller.submit(handle_file(str(file)), api_name="/audio_genre")
    lengths = [len(timeline) for _, timeline, _ in job if timeline]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1] == 12


@pytest.mark.parametrize("name", ["text.mp3", "empty.wav", "song.m4a", "short.wav"])
def test_a_program_is_told_what_is_wrong_with_its_file(caller: Client, tmp_path: Path, name: str) -> None:
    with pytest.raises(AppError) as caught:
        caller.predict(handle_file(str(broken(tmp_path)[name])), api_name="/audio_genre")
    assert str(caught.value).startswith("audio: ")
    assert REFUSED[name] in str(caught.value)


@pytest.mark.parametrize(
    "audio",
    [
        "/etc/passwd",
        {"path": "/etc/passwd"},
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": str(CLIPS / "pad.ogg")},
        {"path": "../../etc/passwd"},
        {"path": "a\0b"},
        {"path": ["x"]},
        {},
        [],
        7,
        None,
    ],
)
def test_a_caller_names_no_path_of_the_server(alone: Suite, caller: Client, audio: Any) -> None:
    asked = httpx.post(f"{alone.url}gradio_api/call/v2/audio_genre", json={"audio": audio})
    events = httpx.get(f"{alone.url}gradio_api/call/audio_genre/{asked.json()['event_id']}", timeout=60).text
    assert "event: error" in events
    assert "root:" not in events
    assert "confidence" not in events
    assert any(reason in events for reason in ("audio: must be a file", "audio: was not uploaded", "uploaded"))


@pytest.mark.parametrize("language", ["python", "javascript", "curl"])
def test_the_snippets_that_the_page_prints_run(alone: Suite, caller: Client, tmp_path: Path, language: str) -> None:
    name = "it's my song (1).wav"
    write(tmp_path / name, tone(3))
    program = {"python": sys.executable, "javascript": which("node"), "curl": which("curl") and which("sh")}[language]
    if not program:
        pytest.skip(f"nothing on this machine runs {language} snippets")
    inputs = {"audio": snippets.File(name), "top_k": 2}
    code = getattr(snippets, language)(alone.url.rstrip("/"), "audio_genre", inputs)
    file = tmp_path / {"python": "snippet.py", "javascript": "snippet.mjs", "curl": "snippet.sh"}[language]
    file.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [program, str(file)], cwd=tmp_path, capture_output=True, timeout=120, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    scores, _, _ = caller.predict(handle_file(str(tmp_path / name)), 2, api_name="/audio_genre")
    for row in scores["confidences"]:
        assert row["label"] in done.stdout
    assert "musicnn" in done.stdout


# -- pictures ------------------------------------------------------------------------------------


def window(start: float, seconds: float, hertz: float = 1000) -> Window:
    return Window(start, start + seconds, tone(seconds, 16_000, hertz), silent=False)


def test_the_picture_shows_pitch_upwards_and_time_to_the_right() -> None:
    picture = Picture(16_000)
    for number in range(6):
        picture.add(window(3 * number, 3, 300 if number < 3 else 3000))
    image = np.asarray(Image.open(io.BytesIO(picture.png())).convert("L"), dtype=float)
    assert image.shape[0] == 192
    assert image.shape[1] == pytest.approx(18 * 16_000 / 256 / 4, rel=0.02)
    low, high = (
        image[:, : image.shape[1] // 2 - 5].mean(1).argmax(),
        image[:, image.shape[1] // 2 + 5 :].mean(1).argmax(),
    )
    assert low > high


def test_the_picture_of_hours_is_no_wider() -> None:
    picture = Picture(16_000)
    for number in range(120):
        picture.add(window(3 * number, 3))
    assert MOST_COLUMNS / 2 < len(picture.columns) <= MOST_COLUMNS
    assert len(picture.png()) < 100_000


def test_a_long_timeline_is_drawn_in_few_segments(context: Context, tmp_path: Path) -> None:
    done = ask(context, CLIPS / "three-in-a-row.ogg", top_k=2)
    moments = done.result.moments * 40
    pieces = segments(moments, MOST_SEGMENTS)
    assert len(pieces) <= MOST_SEGMENTS
    assert best_rows(done.result) == [
        done.result.labels.index(row["label"]) for row in done.result.outputs()[0]["confidences"]
    ]
    shown = genres(done.result, {"audio": "/x/<b>.ogg"})
    assert shown.count('data-act="play"') == 2 * len(done.result.moments)
    assert "<b>" not in shown
    assert "s of silence were skipped" in shown
