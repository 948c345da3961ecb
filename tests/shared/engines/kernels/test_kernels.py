"""Products, norms and attention of the compiled kernels against PyTorch, and each row by itself to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from shared.engines.kernels.attention import Heads, attend_many, attend_one, softmax
from shared.engines.kernels.elementwise import gelu, gelu_tanh, layer_norm, swiglu
from shared.engines.kernels.products import LANES, Matrix, embed
from shared.engines.kernels.products import product as multiply
from shared.engines.packed.weights import pack
from tests.shared.engines.packed.test_weights import quantised

FORMS = {
    "int8": lambda weight: quantised(weight, 32, 15),
    "bf16": lambda weight: weight.bfloat16().float(),
    "fp32": lambda weight: weight,
}


def matrix_of(weight: torch.Tensor) -> Matrix:
    quants, scales, mins = (tensor[0].numpy() for tensor in pack("one", [weight]).values())
    return Matrix(quants.view(np.uint16) if quants.dtype == np.int16 else quants, scales, mins)


def product(x: torch.Tensor, matrix: Matrix, out: int) -> torch.Tensor:
    found = np.empty((len(x), len(matrix.quants) * LANES), np.float32)
    multiply(x.contiguous().numpy(), matrix, found)
    return torch.from_numpy(found)[:, :out]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(130, 96), (64, 32)])
def test_a_product_is_pytorchs_and_a_row_does_not_depend_on_the_others(form: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = FORMS[form](torch.randn(*size))
    x = torch.randn(37, size[1]) * torch.logspace(-3, 3, 37)[:, None]
    matrix = matrix_of(weight)
    whole = product(x, matrix, size[0])
    expected = (x.double() @ weight.double().T).float()
    assert ((whole - expected).norm(dim=1) / expected.norm(dim=1)).max() < (5e-5 if form == "int8" else 1e-6)
    for first, rows in ((0, 1), (5, 1), (3, 2), (11, 3), (20, 4), (1, 7), (0, 8), (7, 15), (36, 1)):
        assert torch.equal(product(x[first : first + rows], matrix, size[0]), whole[first : first + rows])


def test_embeddings_are_rows_of_the_output_matrix() -> None:
    torch.manual_seed(0)
    weight = FORMS["int8"](torch.randn(130, 96))
    out = np.empty((3, 96), np.float32)
    embed(np.array([0, 129, 64]), matrix_of(weight), out)
    torch.testing.assert_close(torch.from_numpy(out), weight[[0, 129, 64]], rtol=1e-6, atol=1e-6)


def test_softmax_of_wide_ranges_and_excluded_places() -> None:
    torch.manual_seed(0)
    for scores in (torch.randn(200) * 30, torch.tensor([5.0]), torch.tensor([0.0, -torch.inf, -300.0, 88.0, 87.5])):
        found = scores.clone().numpy()
        softmax(found)
        torch.testing.assert_close(torch.from_numpy(found), scores.softmax(0), rtol=3e-6, atol=1e-12)


def test_swiglu_of_large_and_small_gates() -> None:
    gates = torch.tensor([[-1e4, -90.0, -1.0, 0.0, 1.0, 90.0, 1e4, 3.0]])
    out = np.empty((1, 8), np.float32)
    swiglu(torch.cat((gates, torch.full((1, 8), 2.0)), 1).numpy(), out)
    torch.testing.assert_close(torch.from_numpy(out), functional.silu(gates) * 2, rtol=1e-6, atol=1e-12)


def test_gelu_of_large_and_small_inputs() -> None:
    inputs = torch.cat((torch.linspace(-12, 12, 197), torch.tensor([-1e20, -1e4, -90.0, 0.0, 90.0, 1e4, 1e20])))[None]
    out = np.empty(inputs.shape, np.float32)
    gelu_tanh(inputs.numpy(), out)
    expected = functional.gelu(inputs.double(), approximate="tanh").float()
    torch.testing.assert_close(torch.from_numpy(out), expected, rtol=2e-6, atol=1e-12)
    gelu(inputs.numpy(), out)
    torch.testing.assert_close(torch.from_numpy(out), functional.gelu(inputs.double()).float(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("width", [8, 96, 768])
def test_a_layer_norm_is_pytorchs_in_place_too(width: int) -> None:
    torch.manual_seed(0)
    x, weights = torch.randn(5, width) * 3 + 7, torch.randn(2, width)
    expected = functional.layer_norm(x, (width,), weights[0], weights[1], 1e-5)
    out = np.empty((5, width), np.float32)
    layer_norm(x.numpy(), weights.numpy(), 1e-5, out)
    torch.testing.assert_close(torch.from_numpy(out), expected, rtol=1e-5, atol=1e-5)
    layer_norm(x.numpy(), weights.numpy(), 1e-5, x.numpy())
    assert np.array_equal(x.numpy(), out)


@pytest.mark.parametrize("size", [8, 64, 96])
@pytest.mark.parametrize(("read", "new"), [(0, 1), (0, 20), (70, 9), (64, 64), (5, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_pytorchs(size: int, read: int, new: int, masked: bool) -> None:
    torch.manual_seed(0)
    heads, kv_heads, length = 6, 2, read + new
    queries, keys, values = (
        torch.randn(heads, new, size),
        torch.randn(kv_heads, length, size),
        torch.randn(kv_heads, length, size),
    )
    seen = torch.ones(new, length, dtype=torch.bool).tril(read)
    if masked:
        seen &= torch.rand(new, length) < 0.7
        seen[:, 0] = True
    expected = functional.scaled_dot_product_attention(
        queries, keys.repeat_interleave(3, 0), values.repeat_interleave(3, 0), attn_mask=seen
    )
    memory = torch.full((2, kv_heads, length + 3, size), torch.nan)  # what is not written is not looked at
    memory[0, :, :length], memory[1, :, :length] = keys, values
    qkv = torch.zeros(new, (heads + 2 * kv_heads) * size)
    qkv[:, : heads * size] = queries.transpose(0, 1).reshape(new, -1)
    out = np.empty((new, heads * size), np.float32)
    made_of = Heads(1, heads, kv_heads, size)
    mask = seen.data_ptr() if masked else 0
    attend_many(qkv.numpy(), memory.numpy(), read, made_of, None, mask, out)
    found = torch.from_numpy(out).view(new, heads, size).transpose(0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    if new == 1 and not masked:
        attend_one(qkv[0].numpy(), memory.numpy(), length, made_of, None, out[0])
        torch.testing.assert_close(torch.from_numpy(out).view(heads, 1, size), expected, rtol=1e-5, atol=1e-6)
