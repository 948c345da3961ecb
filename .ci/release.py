"""Makes a release of what is checked out: `make release VERSION=1.2.0` shows it, with RUN=1 it is done.

CHANGELOG.md's entries under Unreleased go under the version and today's date, pyproject.toml gets the version, and both
are committed and tagged. Nothing is pushed. Needs git and Python alone.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHANGELOG = "CHANGELOG.md"
PROJECT = "pyproject.toml"
UNRELEASED = re.compile(r"^## Unreleased\n(.*?)(?=^## |\Z)", re.M | re.S)
VERSION_LINE = re.compile(r'^(\[project\]\n(?:[^\[\n].*\n|\n)*?version = )"[^"\n]*"', re.M)


class Refused(Exception):
    """Why there is no release."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", help="the version to release, as in 1.2.0")
    parser.add_argument("--run", action="store_true", help="do it; without this, only show it")
    options = parser.parse_args()
    try:
        release(options.version, run=options.run)
    except Refused as refused:
        sys.exit(f"error: {refused}")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"error: {' '.join(failed.cmd)} failed\n{failed.stderr}")


def release(version: str, *, run: bool) -> None:
    old = {name: (ROOT / name).read_text(encoding="utf-8") for name in (CHANGELOG, PROJECT)}
    check(version, old[PROJECT])
    new = {
        CHANGELOG: with_entries_moved(old[CHANGELOG], version, datetime.date.today()),
        PROJECT: with_version(old[PROJECT], version),
    }
    if not run:
        for name in old:
            before, after = old[name].splitlines(keepends=True), new[name].splitlines(keepends=True)
            print("".join(difflib.unified_diff(before, after, name, name)))
        print(f"Nothing was changed. RUN=1 writes this, commits it and tags it v{version}.")
        return
    try:
        write(new)
        git("commit", "--quiet", "--message", f"Release {version}", "--", *new)
    except BaseException:
        write(old)
        raise
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    print(f"Committed and tagged v{version}. To publish it: git push --follow-tags")


def check(version: str, project: str) -> None:
    """Raises `Refused` for a version that is none or not newer, for one that has a tag, and for uncommitted changes."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise Refused(f"VERSION must be three numbers, as in make release VERSION=1.2.0, not '{version}'")
    current = tomllib.loads(project)["project"]["version"]
    if numbers(version) <= numbers(current):
        raise Refused(f"{version} is not newer than {current}, which {PROJECT} has")
    if git("tag", "--list", f"v{version}"):
        raise Refused(f"there is a tag v{version} already")
    if changed := git("status", "--porcelain"):
        raise Refused(f"commit or remove these changes first:\n{changed}")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def with_entries_moved(changelog: str, version: str, today: datetime.date) -> str:
    """The changelog with a section of this version, right after an empty Unreleased."""
    found = UNRELEASED.search(changelog)
    if not found:
        raise Refused(f"{CHANGELOG} has no heading '## Unreleased'")
    entries = found[1].strip()
    if not re.search(r"^- ", entries, re.M):
        raise Refused(f"{CHANGELOG} has no entries under Unreleased; write what is new first")
    section = f"## Unreleased\n\n## {version} - {today:%Y-%m-%d}\n\n{entries}\n\n"
    return (changelog[: found.start()] + section + changelog[found.end() :]).rstrip("\n") + "\n"


def with_version(project: str, version: str) -> str:
    changed = VERSION_LINE.sub(rf'\g<1>"{version}"', project, count=1)
    if tomllib.loads(changed)["project"]["version"] != version:
        raise Refused(f'{PROJECT} has no line `version = "..."` under [project]')
    return changed


def write(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (ROOT / name).write_text(text, encoding="utf-8")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.rstrip()


if __name__ == "__main__":
    main()
