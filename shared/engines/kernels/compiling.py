"""How kernels are compiled: at the first call, for this processor, and kept on disk beside them."""

from __future__ import annotations

import glob
import hashlib
import pickle
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import extending, njit
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from shared.atomic import atomic_file

intrinsic: Any = extending.intrinsic

# By this number compiled code tells functions of one name apart: kernels for two and for four rows, say. Numba counts
# from 1 in each process, so what two processes compiled bears the same names for different functions, and a process
# that loads some of each calls the wrong ones and dies (numba's issue 10486; tested).
FunctionIdentity._unique_ids = iter(lambda: secrets.randbits(64), None)  # pyright: ignore[reportAttributeAccessIssue]


def compiled(**options: Any) -> Any:
    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = njit(nogil=True, error_model="numpy", **options)(function)
        dispatcher._cache = KernelCache(function)  # what `cache=True` does with numba's own
        return dispatcher

    return decorate


plain: Any = compiled()
fused: Any = compiled(fastmath={"contract"})
"""Multiplication and addition in one instruction, and nothing else that changes a result."""
regrouped: Any = compiled(fastmath={"contract", "reassoc"})
"""Sums within one row in the order that is fastest for the processor; it is the same for every row."""


class KernelCache(FunctionCache):
    """Numba's, but for two things.

    Numba looks only at the file of the function that is asked for; this one at all files of kernels. And what is
    compiled lies in files whose names say all that it depends on, written whole: with numba's index, two processes that
    compile at once, or one that is killed between its two writes, could leave the code of one function under another's
    name, and a process that runs it dies.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = CompiledFiles(Path(self._cache_path), self._impl.filename_base)


class CompiledFiles:
    """The compiled code of one function: a file for each signature and processor."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def load(self, key: Any) -> Any:
        try:
            return pickle.loads(self._file(key).read_bytes())
        except FileNotFoundError:
            return None

    def save(self, key: Any, compiled: Any) -> None:
        with atomic_file(self._file(key)) as part:
            part.write_bytes(dumps(compiled))
        self._remove(but=f"{self._name}.{sources()}.")

    def flush(self) -> None:
        self._remove()

    def _file(self, key: Any) -> Path:
        signature, processor, code = key
        said = "\n".join([numba.__version__, repr(signature), *map(str, processor), *code])
        digest = hashlib.sha256(said.encode()).hexdigest()[:DIGITS]
        return self._folder / f"{self._name}.{sources()}.{digest}.nbc"

    def _remove(self, but: str = "/") -> None:
        """Removes code that was compiled from other sources than the present ones."""
        for file in self._folder.glob(f"{glob.escape(self._name)}.*.nbc"):
            if not file.name.startswith(but):
                file.unlink(missing_ok=True)


@cache
def sources() -> str:
    """A digest of all kernels."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:DIGITS]


DIGITS = 24
