"""Writes the commit of every repository in the catalog that is not pinned yet: `make pin`, where a Hub can be reached.

python -m shared.fetching.pin            fill in the revisions that are ""
python -m shared.fetching.pin --check    only say which pinned revisions the Hub does not have
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from shared.atomic import atomic_file
from shared.checkpoints.catalog import CATALOG_FILE, Catalog, HubSource
from shared.errors import SuiteError
from shared.fetching.hub_errors import HubUnreachable, model_info
from shared.fetching.hub_link import HubLink


def pin(catalog_file: Path, link: HubLink, *, check_only: bool = False) -> tuple[list[str], list[str]]:
    """What was pinned, and what is wrong: a repository or a pinned revision that the Hub does not have or not give.

    Changes nothing in the file but the revisions that are "". Raises `SuiteError` where the Hub cannot be asked; what
    was found until then is kept.
    """
    pinned: list[str] = []
    wrong: list[str] = []
    text = catalog_file.read_bytes()
    try:
        for checkpoint in Catalog.read(catalog_file):
            if not isinstance(checkpoint.source, HubSource) or (check_only and not checkpoint.revision):
                continue
            try:
                info = model_info(link.api, checkpoint.source.repo, checkpoint.revision)
            except SuiteError as error:
                if isinstance(error, HubUnreachable):
                    raise
                wrong.append(f"{checkpoint.id}: {error.message}")
                continue
            if not checkpoint.revision:
                text, changed = with_revision(text, checkpoint.id, info.sha)
                if changed:
                    pinned.append(f"{checkpoint.id}: pinned at {info.sha}")
                else:
                    wrong.append(f'{checkpoint.id}: its line `revision: ""` was not found in {catalog_file.name}')
    finally:
        if pinned:
            with atomic_file(catalog_file) as part:
                part.write_bytes(text)
    return pinned, wrong


def with_revision(text: bytes, checkpoint_id: str, revision: str) -> tuple[bytes, int]:
    """The file with the revision of one entry filled in, and how many places that changed."""
    entry = rf'(  - id: {re.escape(checkpoint_id)}\r?\n(?:(?:    .*)?\r?\n)*?    revision: )""'
    return re.subn(entry.encode(), rb"\g<1>" + revision.encode(), text)


def main(arguments: list[str] | None = None, catalog_file: Path = CATALOG_FILE) -> int:
    """0 where every repository is there at its pin; 1 where one is not, or the Hub cannot be asked."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.fetching.pin", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    link = HubLink("hub")
    try:
        pinned, wrong = pin(catalog_file, link, check_only=options.check)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for sentence in pinned or ["every pin is there" if options.check and not wrong else "nothing was pinned"]:
        print(sentence)
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
