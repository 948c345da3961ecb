"""Rows from files as people have them, and from a Hub."""

from __future__ import annotations

import itertools
import json
import re
import tracemalloc
from collections import Counter
from pathlib import Path

import datasets
import pytest

from finetune.data import corpora
from finetune.data.sources import AudioFolder, File, HubData
from finetune.data.split import clean, draw
from shared.errors import InvalidInput, SuiteError
from tests.finetune.conftest import MakeRecipe
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv

ROWS = [{"text": "naïve café", "label": "a"}, {"text": 'two\nlines, "quoted"', "label": "b"}]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        datasets.Dataset.from_list(ROWS).to_parquet(path)
    elif name.endswith(".jsonl"):
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    else:
        cut = "\t" if name.endswith(".tsv") else ","
        quoted = '"two\nlines, ""quoted"""'
        path.write_text(f"text{cut}label\nnaïve café{cut}a\n{quoted}{cut}b\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_a_file_of_each_kind_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    assert list(File(file=write(tmp_path, name)).rows()) == ROWS


def test_encodings_may_be_mixed_and_a_mark_is_no_column(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_bytes("\ufefftext,label\ncafé,a\n".encode() + "café,b\n".encode("cp1252"))
    assert [row["text"] for row in File(file=path).rows()] == ["café", "café"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "there is no file none.csv"),
        ("rows.xlsx", b"PK", "is none of .csv"),
        ("rows.jsonl", b'{"text": 1}\nnot json\n', "line 2 of rows.jsonl"),
        ("rows.jsonl", b"[1]\n", "line 1 of rows.jsonl"),
        ("rows.parquet", b"no parquet", "no readable Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        list(File(file=tmp_path / name).rows())


@pytest.mark.slow
def test_a_large_table_is_read_in_bounded_memory(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path, count = tmp_path / "large.csv", 40_000
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{'word ' * 100}number {i},{'ab'[i % 2]}\n" for i in range(count))
    assert path.stat().st_size > 20e6
    data = make_recipe(**{"data.limit": 500}).data
    tracemalloc.start()
    try:
        counts: Counter[str] = Counter()
        kept = draw(clean(File(file=path).rows(), data, counts, generates=False), data.limit, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (counts["read"], len(kept)) == (count, 500)
    # 64-bit hashes of what was seen, and the rows that are kept; not the file.
    assert peak < 25e6
    numbers = sorted(int(item.input.rpartition(" ")[2]) for item in kept)
    assert numbers[0] < 5_000
    assert numbers[-1] > count - 5_000


def test_folders_of_recordings(tmp_path: Path) -> None:
    for name in ("salsa/a.wav", "salsa/deep/b.mp3", "cumbia/c.flac", "cumbia/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [(Path(row["audio"]).name, row["label"]) for row in AudioFolder(audio_folder=tmp_path).rows()]
    assert found == [("c.flac", "cumbia"), ("a.wav", "salsa"), ("b.mp3", "salsa")]
    with pytest.raises(InvalidInput, match="no folders with recordings"):
        list(AudioFolder(audio_folder=tmp_path / "salsa" / "deep").rows())


def test_a_data_set_of_the_hub(hub: StandInHub, hub_env: HubEnv) -> None:
    hub.add("user/rows", {"train.csv": "text,label\nhello,a\nbye,b\n"}, repo_type="dataset")
    assert list(HubData(dataset="user/rows").rows()) == [{"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}]
    with pytest.raises(SuiteError, match="user/none could not be read from the Hub"):
        list(HubData(dataset="user/none").rows())
    with pytest.raises(SuiteError, match="user/rows could not be read"):
        list(HubData(dataset="user/rows", split="nosuch").rows())


def test_bbc_news_comes_from_its_package() -> None:
    rows = list(corpora.read("bbc-news"))
    assert len(rows) == 2225
    assert {row["label"] for row in rows} == {"business", "entertainment", "politics", "sports", "tech"}
    assert all(len(row["text"]) > 100 for row in rows)


def test_headlines_are_apart_from_their_articles() -> None:
    rows = list(itertools.islice(corpora.read("bbc-headlines"), 50))
    assert all(row["headline"] and not row["text"].startswith(row["headline"]) for row in rows)
    assert all(len(row["text"].split()) <= corpora.ARTICLE_WORDS for row in rows)


def test_small_talk_comes_from_its_package() -> None:
    rows = list(corpora.read("chatterbot"))
    assert len(rows) == 792
    assert all(row["prompt"] and row["reply"] for row in rows)
    assert not {row["category"] for row in rows} & corpora.MANUALS


def test_mail_comes_from_its_package(mails: list[dict[str, str]]) -> None:
    labels = Counter(row["label"] for row in mails)
    assert (labels["ham"] > 1400, labels["spam"] > 1600, len(mails)) == (True, True, 3093)
    assert max(Counter(row["sender"] for row in mails if row["sender"]).values()) == corpora.MAX_PER_SENDER
    subjects = Counter(row["text"].partition("\n")[0].lower() for row in mails)
    assert subjects["selling wedded bliss (was re: ouch...)"] == 1
    # Nothing of how the mails were collected.
    header = re.compile(r"^(X-Spam|Received|List-Id|Delivered-To|Return-Path|Message-Id): ", re.MULTILINE)
    assert sum(bool(header.search(row["text"])) for row in mails) < 20  # some quote whole mails
    assert not [row for row in mails if "@" in row["text"] and "taint.org" in row["text"].split("@")[1]]
