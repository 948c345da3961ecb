"""The documents say what is so: README's programs print what it shows, and generated tables are up to date."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from shared.checkpoints.catalog import Catalog, HubSource
from shared.settings import table
from shared.suite import Suite
from tests.course_hub import MAKERS

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def test_programs_print_what_the_readme_shows(suite: Suite) -> None:
    names: dict[str, object] = {}
    printed = ""
    checked = 0
    for language, code in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(code.replace("http://127.0.0.1:7860/", suite.url), names)
            printed = "\n".join(line for line in out.getvalue().splitlines() if not line.startswith("Loaded as API"))
        elif language == "text":
            assert printed.strip() == code.strip()
            checked += 1
    assert checked >= 5


def test_every_file_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    missing = [link for link in links if not (ROOT / link).is_file()]
    assert not missing


def test_the_table_of_settings_is_up_to_date() -> None:
    assert table() in (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")


def family(repo: str) -> str:
    """What is one architecture in several sizes, or of several pairs of languages."""
    return re.sub(r"-[a-z]{2}-[a-z]{2}$|-(small|base)$|-\d+M-Instruct$", "", repo)


def test_the_table_of_checkpoints_has_every_one_and_claims_no_more_than_there_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in readme.splitlines() if line.startswith("| ")]
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
