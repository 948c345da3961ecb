"""Imports followed through the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.publishing.import_closure import closure

FILES = {
    "app/__init__.py": "",
    "app/start.py": "from app import middle\ndef later():\n    from app.deep.end import x\n    import os, torch.nn\n",
    "app/middle.py": "from . import beside\nfrom .deep import *\n",
    "app/beside.py": "import numpy as np\n",
    "app/deep/__init__.py": "from ..unused_name import nothing\n",
    "app/deep/end.py": "x = 1\n",
    "app/unused_name.py": "nothing = 1\n",
    "app/never.py": "import pandas\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_imports_are_followed_wherever_they_stand(root: Path) -> None:
    found = closure(["app.start"], [root])
    assert sorted(found.modules) == [
        *("app", "app.beside", "app.deep", "app.deep.end", "app.middle", "app.start", "app.unused_name")
    ]
    assert found.modules["app.deep"] == root / "app" / "deep" / "__init__.py"
    assert found.others == {"torch", "numpy"}


def test_a_module_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"app\.nothing"):
        closure(["app.nothing"], [root])
