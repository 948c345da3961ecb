"""Turns data into better checkpoints: `python -m finetune RECIPE` trains, measures before and after, and publishes."""

from __future__ import annotations

import sys
from pathlib import Path

# The Spaces are a source root (ARCHITECTURE.md): the base answers through their own code.
_SPACES = str(Path(__file__).resolve().parents[1] / "spaces")
if _SPACES not in sys.path:
    sys.path.append(_SPACES)
