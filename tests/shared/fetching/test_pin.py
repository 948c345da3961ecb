"""`make pin`: revisions filled in, and everything else in the catalog left as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from shared.checkpoints.catalog import CATALOG_FILE, Catalog
from shared.errors import SuiteError
from shared.fetching.hub_link import HubLink
from shared.fetching.pin import main, pin, with_revision
from tests.stand_in_hub import StandInHub
from tests.stand_in_hub.fixtures import HubEnv

TEXT = re.sub(
    rb"(  - id: Helsinki-NLP/\S+\n(?:    .*\n)*?    revision: )[0-9a-f]{40}", rb'\1""', CATALOG_FILE.read_bytes()
)
"""The real catalog, without the pins of one publisher."""
OF_THE_HUB = [entry for entry in yaml.safe_load(TEXT)["checkpoints"] if "repo" in entry["source"]]
UNPINNED = [entry["id"] for entry in OF_THE_HUB if not entry["revision"]]
PINNED = [entry["id"] for entry in OF_THE_HUB if entry["revision"]]


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    copy = tmp_path / "catalog.yaml"
    copy.write_bytes(TEXT)
    return copy


@pytest.fixture
def commits(hub: StandInHub, hub_env: HubEnv) -> dict[str, str]:
    """A Hub with the repositories that have no pin; their commits."""
    return {repo: hub.add(repo, {"config.json": f'{{"name": "{repo}"}}'}) for repo in UNPINNED}


def test_there_is_something_to_pin() -> None:
    assert len(UNPINNED) > 3
    assert len(PINNED) > 3


def test_revisions_are_filled_in_and_nothing_else_changes(catalog: Path, commits: dict[str, str]) -> None:
    before = catalog.read_bytes()
    pinned, wrong = pin(catalog, HubLink("hub"))
    assert pinned == [f"{repo}: pinned at {commit}" for repo, commit in commits.items()]
    assert {sentence.partition(":")[0] for sentence in wrong} == set(PINNED)  # this Hub has none of them
    after = catalog.read_bytes()
    assert {c.id: c.revision for c in Catalog.read(catalog) if c.id in commits} == commits
    for commit in commits.values():
        assert after.count(commit.encode()) == 1
        after = after.replace(commit.encode(), b'""')
    assert after == before
    assert [file.name for file in catalog.parent.iterdir()] == ["catalog.yaml"]


def test_the_second_time_there_is_nothing_to_do(catalog: Path, commits: dict[str, str]) -> None:
    pin(catalog, HubLink("hub"))
    once = catalog.read_bytes()
    assert pin(catalog, HubLink("hub"))[0] == []
    assert catalog.read_bytes() == once


def test_line_ends_and_comments_stay(catalog: Path, commits: dict[str, str]) -> None:
    catalog.write_bytes(TEXT.replace(b"\n", b"\r\n") + b"  # the end, without a line's end: \xc3\xa9")
    before = catalog.read_bytes()
    pin(catalog, HubLink("hub"))
    after = catalog.read_bytes()
    for commit in commits.values():
        after = after.replace(commit.encode(), b'""')
    assert after == before


def test_only_its_own_entry_is_changed() -> None:
    text = (
        b'  - id: a\n    tasks: []\n\n    revision: "1"\n  - id: a.b\n    revision: ""\n  - id: aXb\n    revision: ""\n'
    )
    changed, number = with_revision(text, "a.b", "f" * 40)
    assert number == 1
    assert changed == text.replace(b'a.b\n    revision: ""', b"a.b\n    revision: " + b"f" * 40)
    assert with_revision(text, "a", "f" * 40) == (text, 0)


def test_a_check_says_which_pins_do_not_exist_and_changes_nothing(
    catalog: Path, hub: StandInHub, hub_env: HubEnv, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add(PINNED[0], {"config.json": "{}"})  # there, but at another commit
    before = catalog.read_bytes()
    assert main(["--check"], catalog) == 1
    said = capsys.readouterr()
    assert re.search(rf"error: {PINNED[0]}: .* has no such revision on the Hub", said.err)
    assert re.search(rf"error: {PINNED[1]}: the Hub has no repository", said.err)
    assert "error" not in said.out
    assert not any(repo in said.err for repo in UNPINNED)
    assert catalog.read_bytes() == before


def test_a_check_is_quiet_where_all_is_well(
    tmp_path: Path, hub: StandInHub, hub_env: HubEnv, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.add("user/tiny", {"config.json": "{}"})
    entry = (
        CATALOG_FILE.read_text(encoding="utf-8").partition("  - id: openai-community/gpt2\n")[2].partition("\n\n")[0]
    )
    changed = re.sub("revision: .*", f"revision: {commit}", entry.replace("openai-community/gpt2", "user/tiny"))
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(f"checkpoints:\n  - id: user/tiny\n{changed}\n", encoding="utf-8")
    assert main(["--check"], catalog) == 0
    assert capsys.readouterr() == ("every pin is there\n", "")
    assert main([], catalog) == 0


def test_without_a_hub_it_says_so(
    catalog: Path, hub: StandInHub, hub_env: HubEnv, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.unreachable()
    before = catalog.read_bytes()
    assert main([], catalog) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: the Hub cannot be reached (")
    assert "HF_ENDPOINT" in said.err
    assert "fetched" not in said.err, "nothing was"
    assert said.out == ""
    assert catalog.read_bytes() == before


def test_what_was_found_before_the_hub_broke_off_is_kept(
    catalog: Path, commits: dict[str, str], hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.fetching import hub_errors

    monkeypatch.setattr(hub_errors, "BACKOFF", 0.01)
    last = UNPINNED[-1]
    hub.faults.server_error(f"/api/models/{last}", times=10)
    with pytest.raises(SuiteError, match="the Hub answered 503"):
        pin(catalog, HubLink("hub"))
    revisions = {c.id: c.revision for c in Catalog.read(catalog)}
    assert revisions[UNPINNED[0]] == commits[UNPINNED[0]]
    assert revisions[last] == ""
