"""Weights are kept in the smallest numbers that lose nothing, whatever they were published in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engines.packed.weights import LANES, grid_of, pack, parts_of


def quantised(weight: torch.Tensor, size: int, levels: int) -> torch.Tensor:
    """As llama.cpp publishes it: groups of `size` inputs with a step and, but for 127 levels, an offset in float16."""
    groups = weight.reshape(-1, size)
    if levels == 127:  # Q8_0
        step, offset = groups.abs().amax(1, keepdim=True) / 127, torch.zeros(len(groups), 1)
    elif levels == 8:  # Q4_0: from -8 to 7, by the largest
        largest = groups.gather(1, groups.abs().argmax(1, keepdim=True))
        step, offset = largest / -8, torch.zeros(len(groups), 1)
        step = step.half().float()
        places = (groups / torch.where(step == 0, 1, step)).round().clamp(-8, 7)
        return (places * step).reshape(weight.shape)
    else:  # Q4_1, Q5_1
        offset = groups.amin(1, keepdim=True)
        step = (groups.amax(1, keepdim=True) - offset) / levels
    step, offset = step.half().float(), offset.half().float()
    places = ((groups - offset) / torch.where(step == 0, 1, step)).round()
    places = places.clamp(-127, 127) if levels == 127 else places.clamp(0, levels)
    return (places * step + offset).reshape(weight.shape)


def unpacked(tensors: dict[str, torch.Tensor], name: str, out: int) -> torch.Tensor:
    """What the kernels compute with: float32 (layers, out, in)."""
    quants, scales, mins = parts_of(tensors, name)
    if quants.dtype == torch.int16:
        quants = quants.view(torch.bfloat16)
    if quants.dtype == torch.int8:
        layers, blocks, pairs, lanes, _ = quants.shape
        quants = quants.transpose(3, 4).reshape(layers, blocks, 2 * pairs, lanes)
    size = quants.shape[2] // scales.shape[2]
    whole = quants.float() * scales.repeat_interleave(size, 2) + mins.repeat_interleave(size, 2)
    return whole.transpose(2, 3).reshape(len(quants), -1, quants.shape[2])[:, :out]


@settings(max_examples=40, deadline=None)
@given(
    levels=st.sampled_from([127, 8, 15, 31, 63]),
    size=st.sampled_from([16, 32]),
    scale=st.sampled_from([0.05, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_what_was_quantised_is_kept_in_a_byte_each(levels: int, size: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    published = [quantised(torch.randn(70, 96) * scale, size, levels) for _ in range(2)]
    tensors = pack("down", published)
    assert tensors["down.quants"].dtype == torch.int8
    assert tensors["down.quants"].shape == (2, 2, 48, LANES, 2)
    for one, layer in zip(published, unpacked(tensors, "down", 70), strict=True):
        # Steps are found anew from the extremes, which float32 holds to one part in ten million.
        torch.testing.assert_close(layer, one, rtol=1e-6, atol=1e-6 * float(one.abs().max()))


@pytest.mark.parametrize(("published", "form"), [("bf16", torch.int16), ("fp32", torch.float32)])
def test_what_was_not_quantised_is_kept_as_it_was(published: str, form: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(130, 36)
    weight = weight.bfloat16().float() if published == "bf16" else weight
    tensors = pack("qkv", [weight])
    assert tensors["qkv.quants"].dtype == form
    assert torch.equal(unpacked(tensors, "qkv", 130)[0], weight)


def test_one_matrix_off_the_levels_and_none_is_rounded() -> None:
    torch.manual_seed(0)
    weights = [quantised(torch.randn(64, 32), 32, 15), torch.randn(64, 32)]
    tensors = pack("down", weights)
    assert tensors["down.quants"].dtype == torch.float32
    for weight, layer in zip(weights, unpacked(tensors, "down", 64), strict=True):
        assert torch.equal(layer, weight)


def test_groups_of_one_value_and_a_stray_one() -> None:
    same = torch.tensor([[0.0] * 16, [0.25] * 16, [-3.0] * 16])
    found = grid_of(same)
    assert found is not None
    quants, scales, mins = found
    torch.testing.assert_close(quants.float() * scales[:, None] + mins[:, None], same, rtol=1e-6, atol=0)
    one_off = quantised(torch.randn(4, 32), 32, 15)
    one_off[2, 5] += 0.013
    assert grid_of(one_off) is None
