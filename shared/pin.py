"""Writes the commit of every repository in the catalog that is not pinned yet: `make pin`, where a Hub can be reached.

python -m shared.pin            fill in the revisions that are ""
python -m shared.pin --check    only say which pinned revisions the Hub does not have
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from shared.catalog import CATALOG_FILE, Catalog, HubSource
from shared.errors import SuiteError
from shared.hub_errors import in_words
from shared.hub_link import HubLink


def pin(catalog_file: Path, link: HubLink, *, check_only: bool = False) -> list[str]:
    """One sentence for each repository that was pinned, or whose pin the Hub does not have. Keeps the file's comments.

    Raises `SuiteError` where the Hub cannot be asked.
    """
    said = []
    text = catalog_file.read_text(encoding="utf-8")
    for checkpoint in Catalog.read(catalog_file):
        if not isinstance(checkpoint.source, HubSource) or (check_only and not checkpoint.revision):
            continue
        try:
            info = link.api.model_info(checkpoint.source.repo, revision=checkpoint.revision or None)
        except Exception as error:
            found = in_words(error, checkpoint.source.repo)
            if found.status == 503:
                raise found from error
            said.append(f"{checkpoint.id}: {found.message}")
            continue
        if not checkpoint.revision:
            entry = re.compile(rf'(  - id: {re.escape(checkpoint.id)}\n(?:    .*\n)*?    revision: )""', re.MULTILINE)
            text, changed = entry.subn(rf"\g<1>{info.sha}", text)
            said.append(f"{checkpoint.id}: pinned at {info.sha}" if changed else f"{checkpoint.id}: entry not found")
    if not check_only:
        catalog_file.write_text(text, encoding="utf-8")
    return said


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m shared.pin", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    try:
        for sentence in pin(CATALOG_FILE, HubLink("hub"), check_only=options.check) or ["nothing to pin"]:
            print(sentence)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
