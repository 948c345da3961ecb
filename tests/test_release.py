"""`make release` and its script, on a git repository of their own."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHANGELOG = """# Changelog

## Unreleased

### Added

- A thing.

### Fixed

- Another thing,
  in two lines.

## 0.0.1 - 2026-01-02

- The first thing.
"""


PERSON = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Repository:
    """A git repository with the real script, Makefile and pyproject.toml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # No more: what `make test` was given, such as EXTRAS, is not meant for the `make` in here.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            **PERSON,
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def release(self, version: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, ".ci/release.py", version, *options)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", "release", f"PYTHON={sys.executable}", *arguments)

    def state(self) -> tuple[str, str]:
        """The commit with its tags and branches, and what is not committed."""
        return self.git("log", "-1", "--format=%H%d"), self.git("status", "--porcelain")

    def version(self) -> str:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "repository"
    for name in (".ci/release.py", "Makefile", "pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    repository = Repository(folder)
    repository.git("init", "--quiet", "--template=")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "Everything")
    return folder


@pytest.fixture
def repository(committed: Path, tmp_path: Path) -> Repository:
    return Repository(shutil.copytree(committed, tmp_path / "repository"))


def test_without_run_it_shows_what_would_change_and_changes_nothing(repository: Repository) -> None:
    before = repository.state()
    shown = repository.make("VERSION=97.0.0")
    assert shown.returncode == 0, shown.stderr
    assert '+version = "97.0.0"' in shown.stdout
    assert "+## 97.0.0 - " in shown.stdout
    assert "Nothing was changed" in shown.stdout
    assert repository.state() == before


def test_with_run_it_commits_and_tags(repository: Repository) -> None:
    old = (repository.folder / "pyproject.toml").read_text()
    begun = datetime.date.today()
    done = repository.make("VERSION=97.0.0", "RUN=1")
    assert done.returncode == 0, done.stderr
    assert repository.git("status", "--porcelain") == ""
    assert repository.git("log", "-1", "--format=%s").strip() == "Release 97.0.0"
    assert repository.git("show", "--format=", "--name-only", "HEAD").split() == ["CHANGELOG.md", "pyproject.toml"]
    assert repository.git("rev-parse", "v97.0.0^{commit}") == repository.git("rev-parse", "HEAD")
    assert repository.git("cat-file", "-t", "v97.0.0").strip() == "tag"
    assert (repository.folder / "pyproject.toml").read_text() == re.sub(
        r'^version = ".*"', 'version = "97.0.0"', old, count=1, flags=re.M
    )
    changelog = (repository.folder / "CHANGELOG.md").read_text()
    [made] = re.findall(r"^## 97\.0\.0 - (.*)$", changelog, re.M)
    assert begun <= datetime.date.fromisoformat(made) <= datetime.date.today()
    assert changelog == CHANGELOG.replace("## Unreleased\n", f"## Unreleased\n\n## 97.0.0 - {made}\n", 1)
    again = repository.release("97.0.1")
    assert again.returncode
    assert "no entries under Unreleased" in again.stderr


@pytest.mark.parametrize("untracked", [True, False])
def test_uncommitted_changes_are_refused(repository: Repository, untracked: bool) -> None:
    (repository.folder / ("new.py" if untracked else "Makefile")).write_text("x = 1\n")
    before = repository.state()
    refused = repository.release("97.0.0", "--run")
    assert refused.returncode
    assert ("new.py" if untracked else "Makefile") in refused.stderr
    assert repository.state() == before


@pytest.mark.parametrize("version", ["0.0.9", "same", "97.0", "v97.0.0", ""])
def test_what_is_no_newer_version_is_refused(repository: Repository, version: str) -> None:
    before = repository.state()
    refused = repository.release(repository.version() if version == "same" else version, "--run")
    assert refused.returncode
    assert "not newer" in refused.stderr or "three numbers" in refused.stderr
    assert repository.state() == before


def test_numbers_are_compared_not_letters(repository: Repository) -> None:
    text = (repository.folder / "pyproject.toml").read_text()
    (repository.folder / "pyproject.toml").write_text(text.replace(f'"{repository.version()}"', '"0.9.0"', 1))
    repository.git("commit", "--quiet", "--all", "--message", "0.9.0")
    assert repository.release("0.10.0").returncode == 0
    assert "not newer" in repository.release("0.8.10").stderr


def test_a_tag_that_is_there_is_refused(repository: Repository) -> None:
    repository.git("tag", "v97.0.0")
    assert "already" in repository.release("97.0.0", "--run").stderr


def test_a_commit_that_fails_leaves_the_files_as_they_were(repository: Repository) -> None:
    hook = repository.folder / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    before = repository.state()
    refused = repository.release("97.0.0", "--run")
    assert refused.returncode
    assert "not today" in refused.stderr
    assert repository.state() == before


def test_this_repositorys_own_files_are_as_a_release_wants_them() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## (.*)$", changelog, re.M)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", headings[1])
