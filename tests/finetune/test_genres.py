"""The course's audio recipe from recordings to the Space: trained on a tiny wav2vec2 of a stand-in Hub, measured,
published, and asked through the page's own endpoint."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from gradio_client import Client, handle_file

from finetune.data.sounds import audiofolder_rows, has_torchcodec, listed_rows, write_recordings
from finetune.data.sources import AudioFolder, HubData
from finetune.data.split import Item
from finetune.recipe import Recipe, read_recipe
from finetune.results.loading import load_trained
from finetune.results.publish import publish
from finetune.run.job import as_trained, measure_result
from finetune.run.train import train
from finetune.run_folder import run_of
from shared.errors import InvalidInput, SuiteError
from shared.events import result_of
from shared.fetching.hub_models import added
from shared.settings import Settings
from shared.suite import Suite, serve
from tests.course_hub import pin_to, push
from tests.finetune.test_methods import losses
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import turn_clients_to

BASE = "facebook/wav2vec2-base"
RATE = 16_000
HERTZ = {"bachata": 150, "salsa": 900, "vallenato": 3000}


def clip(genre: str, number: int) -> np.ndarray:
    """A second of a genre, no two alike."""
    chance = np.random.default_rng([HERTZ[genre], number])
    time = np.arange(RATE) / RATE
    tone = np.sign(np.sin(2 * np.pi * HERTZ[genre] * chance.uniform(0.95, 1.05) * time))
    return (0.3 * tone + 0.02 * chance.normal(size=RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def genres(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "genres"
    for genre in HERTZ:
        (folder / genre).mkdir(parents=True)
        for number in range(10):
            soundfile.write(folder / genre / f"test {number}.flac", clip(genre, number), RATE)
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandInHub, Suite]]:
    folder = tmp_path_factory.mktemp("genres-suite")
    settings = Settings(cache_dir=folder / "cache", port=0, warm_examples=False, spaces=("audio_genre",))
    with StandInHub() as hub, pytest.MonkeyPatch.context() as patch:
        turn_clients_to(hub.endpoint, folder / "hf-home", patch)
        patch.setenv("HF_TOKEN", "hf_writer")
        commit = push(hub, BASE, folder / "made")
        suite = serve(settings, block=False)
        pin_to(suite, {BASE: commit})
        yield hub, suite
        suite.close()


def recipe_of(name: str, genres: Path, rate: float) -> Recipe:
    steps = ["training.max_steps=24", "training.evaluations=2", "training.batch_size=8", "evaluation.rows=6"]
    steps += ["training.gradient_accumulation=1", f"training.learning_rate={rate}", "data.split.seed=1"]
    return read_recipe(name, [*steps, f"data.source={{audio_folder: '{genres}'}}"])


@pytest.mark.parametrize(("name", "rate"), [("genres-wav2vec2", 0.003), ("genres-wav2vec2-lora", 0.01)])
@pytest.mark.slow
def test_from_recordings_to_the_space(
    name: str, rate: float, genres: Path, suite: tuple[StandInHub, Suite], tmp_path: Path
) -> None:
    (hub, running), recipe, repo = suite, recipe_of(name, genres, rate), f"user/{name}"
    runtime = running.runtime
    run = run_of(recipe, runtime.settings)
    prepared, expected = train(recipe, run, runtime)
    assert prepared.labels == sorted(HERTZ)
    assert expected.trainable < expected.parameters or name == "genres-wav2vec2"
    found = losses(run)
    assert sum(found[-4:]) < sum(found[:4])
    measured = measure_result(as_trained(prepared, run), prepared.parts, run, runtime)
    assert measured["metric"] == "accuracy"
    assert measured["systems"][-1]["confusion"]["labels"] == sorted(HERTZ)

    publish(run.result, repo, runtime, private=False, say=lambda text: None)
    files = hub.files(repo)
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= files.keys()
    assert "adapter_config.json" not in files

    soundfile.write(tmp_path / "recording.wav", clip("salsa", 99), RATE, subtype="FLOAT")
    label, probability = what_the_cards_python_says(files["README.md"].decode(), tmp_path)
    trained = load_trained(run.folder, None, runtime)
    item = [Item(str(tmp_path / "recording.wav"), "salsa")]
    assert trained.task.answers(trained.model, trained.processor, item, recipe, trained.labels, lambda *_: None) == [
        label
    ]

    assert result_of(added((repo,), runtime.catalog, runtime.hub)) == []
    client = Client(running.url, verbose=False)
    recording = handle_file(str(tmp_path / "recording.wav"))
    whole, timeline, info = client.predict(api_name="/audio_genre", audio=recording, top_k=3, model=repo)
    assert info["checkpoint"] == repo
    assert len(timeline) == 1
    assert whole["label"] == label
    assert {one["label"] for one in whole["confidences"]} == set(HERTZ)
    assert whole["confidences"][0]["confidence"] == pytest.approx(probability, abs=1e-3)


def what_the_cards_python_says(card: str, folder: Path) -> tuple[str, float]:
    code = re.search(r"```python\n(.*?)```", card, re.S)
    assert code is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.chdir(folder):
        exec(compile(code[1], "README.md", "exec"), {})
    label, probability = printed.getvalue().split()
    return label, float(probability)


def test_an_adapter_for_sound_is_merged_since_speech_models_have_no_head() -> None:
    assert read_recipe("genres-wav2vec2-lora").saves == "checkpoint"
    assert read_recipe("genres-wav2vec2-lora", ["task=text-classification"]).saves == "adapter"
    with pytest.raises(InvalidInput, match=r"method\.name: an adapter for sound is merged"):
        read_recipe("genres-wav2vec2", ["method={name: qlora}"])


# -- where recordings come from ------------------------------------------------------------------------


@pytest.mark.skipif(not has_torchcodec(), reason="torchcodec or FFmpeg's libraries are missing")
def test_audiofolder_lists_what_we_list(genres: Path) -> None:
    ours = list(listed_rows(genres))
    theirs = [{key: row[key] for key in ("audio", "label")} for row in audiofolder_rows(genres)]
    assert sorted(theirs, key=str) == sorted(ours, key=str)


def test_a_folder_gives_paths_and_labels(genres: Path) -> None:
    rows = list(AudioFolder(audio_folder=genres).rows())
    assert len(rows) == 30
    assert {row["label"] for row in rows} == set(HERTZ)
    assert all(os.path.isabs(row["audio"]) and row["label"] in row["audio"] for row in rows)  # noqa: PTH117


def test_recordings_of_a_data_set_are_the_bytes_it_holds(
    genres: Path, suite: tuple[StandInHub, Suite], tmp_path: Path
) -> None:
    from datasets import Audio, ClassLabel, Features

    hub = suite[0]
    files = sorted(genres.rglob("*.flac"))
    names = sorted(HERTZ)
    rows = [
        {"audio": {"bytes": file.read_bytes(), "path": file.name}, "label": names.index(file.parent.name)}
        for file in files
    ]
    rows.append({"audio": rows[0]["audio"], "label": -1})
    features = Features({"audio": Audio(sampling_rate=RATE), "label": ClassLabel(names=names)})
    held = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), held)
    hub.add("user/sounds", {"data/train-00000-of-00001.parquet": held.getvalue()}, repo_type="dataset")
    hub.add(
        "user/folders",
        {
            f"all/{part}/{file.parent.name}/{file.name}": file.read_bytes()
            for file in files[::5]
            for part in ("train", "test")
        },
        repo_type="dataset",
    )

    read = list(write_recordings(HubData(dataset="user/sounds").rows(), "audio", tmp_path / "sounds"))
    assert read == list(write_recordings(HubData(dataset="user/sounds").rows(), "audio", tmp_path / "sounds"))
    assert [row["label"] for row in read] == [*(file.parent.name for file in files), None]
    assert [Path(row["audio"]).read_bytes() for row in read[:-1]] == [file.read_bytes() for file in files]
    assert len(list((tmp_path / "sounds").iterdir())) == 30

    fetched = list(write_recordings(HubData(dataset="user/folders").rows(), "audio", tmp_path / "sounds"))
    assert sorted(row["label"] for row in fetched) == sorted([*HERTZ] * 2)
    assert all(soundfile.info(row["audio"]).samplerate == RATE for row in fetched)
    with pytest.raises(SuiteError, match="holds no recordings but"):
        list(write_recordings(iter([{"audio": {"array": [0.0]}}]), "audio", tmp_path))
