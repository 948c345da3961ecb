"""What is compiled is found again for what it was compiled for, and for nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import types

from shared.engines.kernels import compiling
from shared.engines.kernels.compiling import CompiledFiles, compiled

PROCESSOR = ("x86_64-unknown-linux-gnu", "znver4", "+avx2")
FLOATS, INTEGERS = (types.Array(types.float32, 1, "C"),), (types.Array(types.int8, 1, "C"),)


def test_each_signature_and_processor_has_a_file_of_its_own(tmp_path: Path) -> None:
    files = CompiledFiles(tmp_path, "products.add-1.py311")
    keys = [(FLOATS, PROCESSOR, ("a", "b")), (INTEGERS, PROCESSOR, ("a", "b")), (FLOATS, PROCESSOR[:2], ("a", "b")),
            (FLOATS, PROCESSOR, ("a", "another"))]  # fmt: skip
    for number, key in enumerate(keys):
        assert files.load(key) is None
        files.save(key, number)
    assert [CompiledFiles(tmp_path, "products.add-1.py311").load(key) for key in keys] == [0, 1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 4, "nothing half-written is left"
    assert CompiledFiles(tmp_path, "products.add-2.py311").load(keys[0]) is None


def test_what_was_compiled_of_other_kernels_is_not_used_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key: Any = (FLOATS, PROCESSOR, ("a", "b"))
    files, other = CompiledFiles(tmp_path, "products.add-1.py311"), CompiledFiles(tmp_path, "products.add-1.py3110")
    files.save(key, "old")
    other.save(key, "of another function")
    monkeypatch.setattr(compiling, "sources", lambda: "changed")
    assert files.load(key) is None
    files.save(key, "new")
    assert files.load(key) == "new"
    assert len(list(tmp_path.iterdir())) == 2
    files.flush()
    assert [file.name.split(".")[2] for file in tmp_path.iterdir()] == ["py3110"]


def test_a_function_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))

    def twice(numbers: np.ndarray) -> float:
        return 2 * numbers.sum()

    for hits in (0, 1):
        fresh = compiled()(twice)
        assert fresh(np.ones(3, np.float32)) == 6
        assert sum(fresh.stats.cache_hits.values()) == hits
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


CLOSURES = """
import sys
import numpy as np
from shared.engines.kernels.compiling import compiled

def times(factor):
    @compiled()
    def kernel(x):
        total = 0.0
        for number in np.sort(x):  # so much code that it is not put into its caller
            total += factor * number
        return total
    return kernel

one, two = times(1), times(2)

@compiled()
def both(x):
    return one(x), two(x)

for name in sys.argv[1:]:
    print(globals()[name](np.ones(3)))
"""


def test_what_several_processes_compiled_goes_together(tmp_path: Path) -> None:
    (tmp_path / "closures.py").write_text(CLOSURES, encoding="utf-8")

    def run(cache: str, *names: str) -> list[str]:
        paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[4])])
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / cache), "PYTHONPATH": paths}
        command = [sys.executable, str(tmp_path / "closures.py"), *names]
        return subprocess.run(command, env=environment, text=True, capture_output=True, check=True).stdout.splitlines()

    assert run("first", "one", "two", "both") == ["3.0", "6.0", "(3.0, 6.0)"]
    assert run("other", "two", "one", "both") == ["6.0", "3.0", "(3.0, 6.0)"]
    (both,) = (tmp_path / "other").rglob("closures.both-*.nbc")
    (replaced,) = (tmp_path / "first").rglob("closures.both-*.nbc")
    shutil.copy(both, replaced)
    assert run("first", "one", "two", "both") == ["3.0", "6.0", "(3.0, 6.0)"]
    assert len(list((tmp_path / "first").rglob("*.nbc"))) == 3, "nothing was compiled again"
