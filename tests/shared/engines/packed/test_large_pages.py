"""Reading converted weights into memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shared.engines.packed.large_pages import read_file

TENSORS = {
    "quants": torch.arange(-64, 64, dtype=torch.int8).view(2, 4, 16),
    "halves": torch.randn(3, 5).bfloat16().view(torch.int16),
    "floats": torch.randn(7, 3),
    "one": torch.tensor([2.5]),
    "nothing": torch.zeros(0, 4),
}


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "weights", metadata={"format": "pt"})
    found = read_file(tmp_path / "weights")
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "weights")
    whole = (tmp_path / "weights").read_bytes()
    (tmp_path / "weights").write_bytes(whole[:-1])
    with pytest.raises(OSError, match="ends too early"):
        read_file(tmp_path / "weights")


def test_numbers_of_another_type_are_refused(tmp_path: Path) -> None:
    save_file({"doubles": torch.zeros(3, dtype=torch.float64)}, tmp_path / "weights")
    with pytest.raises(KeyError, match="F64"):
        read_file(tmp_path / "weights")
