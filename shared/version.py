"""The product's version, which stands in pyproject.toml alone."""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PRODUCT = "foundation-model-demo-suite"


@cache
def product_version() -> str:
    """The installed package's version, else that of the pyproject.toml above this file, else "unknown"."""
    try:
        return version(PRODUCT)
    except PackageNotFoundError:  # run from a checkout, as is usual
        pass
    for folder in Path(__file__).resolve().parents:
        try:
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        except (OSError, ValueError):
            continue
        if project.get("name") == PRODUCT:
            return project["version"]
    return "unknown"
