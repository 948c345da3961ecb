"""The documents say what is so: their programs print what they show, their links and paths lead somewhere, and their
tables are up to date."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from shared.checkpoints.catalog import Catalog, HubSource
from shared.settings import table
from shared.suite import Suite
from tests.course_hub import MAKERS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
PROGRAMS = (ROOT / "README.md", DOCS / "CALLING.md")
"""Whose programs are run, one after the other."""
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), ROOT / "finetune" / "README.md"]
HISTORY = {"CHANGELOG.md", "RESULTS.md"}
"""These may name what is gone."""
NOT_IN_GIT = {"finetune/adapters/"}
LONGEST = {"README.md": 220, "ARCHITECTURE.md": 110}
"""Lines."""


def read(*path: str) -> str:
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def test_programs_print_what_the_documents_show(suite: Suite) -> None:
    names: dict[str, object] = {}
    printed = ""
    checked = 0
    for language, code in BLOCK.findall("\n".join(path.read_text(encoding="utf-8") for path in PROGRAMS)):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(code.replace("http://127.0.0.1:7860/", suite.url), names)
            printed = "\n".join(line for line in out.getvalue().splitlines() if not line.startswith("Loaded as API"))
        elif language == "text":
            assert printed.strip() == code.strip()
            checked += 1
    assert checked >= 5


def anchors(text: str) -> set[str]:
    """What a page of this text can be linked to: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    missing = []
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^):]+)\)", path.read_text(encoding="utf-8")):
            file, _, anchor = link.partition("#")
            target = (path.parent / file) if file else path
            if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
                missing.append(f"{path.relative_to(ROOT)}: {link}")
    assert not missing


def test_every_path_and_module_that_a_document_names_is_there() -> None:
    missing = []
    for path in DOCUMENTS:
        text = "" if path.name in HISTORY else path.read_text(encoding="utf-8")
        names = set(re.findall(r"(?<![\w./-])(?:shared|finetune|spaces|tests|benchmarks)/[\w./*-]*[\w/*]", text))
        names |= {name.replace(".", "/") + "*" for name in re.findall(r"python -m ((?:shared|finetune)[\w.]*)", text)}
        missing += [
            f"{path.relative_to(ROOT)}: {name}" for name in sorted(names - NOT_IN_GIT) if not any(ROOT.glob(name))
        ]
    assert not missing


def test_every_document_is_in_an_index() -> None:
    for index in (DOCS / "README.md", DOCS / "decisions" / "README.md"):
        linked = set(re.findall(r"\]\(([^)]+)\)", index.read_text(encoding="utf-8")))
        assert [file.name for file in index.parent.glob("*.md") if file.name not in {*linked, index.name}] == []


@pytest.mark.parametrize(("name", "lines"), LONGEST.items())
def test_what_everybody_reads_first_stays_short(name: str, lines: int) -> None:
    assert len(read(name).splitlines()) <= lines


def test_the_readme_shows_bars_of_the_same_run() -> None:
    shown = read("README.md").partition("<!-- speed -->")[2].partition("<!-- /speed -->")[0].strip().splitlines()
    assert len(shown) > 3
    assert set(shown) <= set(read("docs", "BENCHMARKS.md").splitlines())


def test_the_table_of_settings_is_up_to_date() -> None:
    assert table() in (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")


def family(repo: str) -> str:
    """What is one architecture in several sizes, or of several pairs of languages."""
    return re.sub(r"-[a-z]{2}-[a-z]{2}$|-(small|base)$|-\d+M-Instruct$", "", repo)


def test_the_table_of_checkpoints_has_every_one_and_claims_no_more_than_there_is() -> None:
    lines = read("docs", "PROOF.md").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    proved = {row[0]: row for row in rows if len(row) == 5}
    made = {family(repo) for repo in MAKERS}
    for checkpoint in Catalog.read():
        _, _, revision, proof, real = proved[checkpoint.id]
        if isinstance(checkpoint.source, HubSource):
            assert revision == (checkpoint.revision[:8] or "not pinned")
            assert proof.startswith("yes")
            assert family(checkpoint.id) in made or checkpoint.kind == "sentence-encoder"  # whose real file is run
            same_files = checkpoint.id == "sentence-transformers/all-MiniLM-L6-v2"
            assert real.startswith("yes") == same_files
        else:
            assert (revision, real) == (checkpoint.revision, "yes")
