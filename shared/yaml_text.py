"""YAML by libyaml where it is installed: PyYAML's own parser took a tenth of a second of every start."""

from __future__ import annotations

from typing import Any

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """What `yaml.safe_load` gives. Raises `yaml.YAMLError`."""
    return yaml.load(text, _Loader)
