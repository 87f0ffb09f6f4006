"""Instance norm on a CPU: its gradient is the formula's, in any type and any pieces, and can be differentiated."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ganvas.nn import instance_norm as module
from ganvas.nn.instance_norm import instance_norm

EPS = 1e-5


def maps(shape: tuple[int, ...], seed: int, mean: float = 0.0) -> Tensor:
    """Draw channels-last maps of deviation 1 around ``mean``."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean
    return x.contiguous(memory_format=torch.channels_last)


def by_the_formula(x: Tensor) -> Tensor:
    """Instance norm by its formula (Ulyanov et al. 2016, Eq. 2)."""
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + EPS).sqrt()


def gradient(function, x: Tensor, upstream: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (result,) = torch.autograd.grad(function(x), x, upstream)
    return result


@given(
    pictures=st.integers(1, 3),
    channels=st.integers(1, 6),
    height=st.integers(2, 9),
    width=st.integers(1, 9),
    piece=st.integers(1, 300),
    small=st.sampled_from([0, 1024]),
)
def test_values_and_gradient_are_the_formulas_however_they_are_cut(pictures, channels, height, width, piece, small):
    x, upstream = (maps((pictures, channels, height, width), seed, 2.0) for seed in (1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        patch.setattr(module, "SMALL", small)
        values = instance_norm(x.clone().requires_grad_(), EPS)
        got = gradient(lambda x: instance_norm(x, EPS), x, upstream)
    torch.testing.assert_close(values, by_the_formula(x), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(got, gradient(by_the_formula, x, upstream), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("mean", [0.0, 5.0])
@pytest.mark.parametrize("shape", [(2, 8, 64, 80), (3, 16, 20, 30)])
@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 1.8e-3), (torch.float16, 2.3e-4), (torch.float32, 5e-5)])
def test_the_gradient_errs_by_the_rounding_of_its_type_alone(dtype, most, shape, mean):
    x, upstream = maps(shape, 1, mean).to(dtype), maps(shape, 2).to(dtype)
    exact = gradient(by_the_formula, x.double(), upstream.double())
    got = gradient(lambda x: instance_norm(x, EPS), x, upstream)
    assert got.dtype == dtype
    error, rounding = ((each.double() - exact).norm() / exact.norm() for each in (got, exact.to(dtype)))
    # Rounding alone is 1.7e-3 and 2.1e-4; in float32 torch's kernel takes the variance as a difference of two sums.
    assert 0.9 * rounding <= error < most


def test_maps_of_one_pixel_become_zero_and_pass_no_gradient():
    x = maps((2, 3, 1, 1), 1).requires_grad_()
    y = instance_norm(x, EPS)
    y.sum().backward()
    assert x.grad is not None and max(y.abs().max(), x.grad.abs().max()) < 1e-12


def test_it_can_be_differentiated_twice():
    x = maps((2, 3, 4, 3), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: instance_norm(x, EPS), x)
    assert torch.autograd.gradgradcheck(lambda x: instance_norm(x, EPS), x)


def test_a_gradient_penalty_through_it_is_the_formulas():
    def penalty(function, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(x).tanh().sum(), x, create_graph=True)
        (slope.square().sum().sqrt() - 1).square().backward()
        assert x.grad is not None
        return x.grad

    x = maps((2, 3, 6, 5), 3)
    got = penalty(lambda x: instance_norm(x, EPS), x)
    torch.testing.assert_close(got, penalty(by_the_formula, x), rtol=1e-6, atol=1e-9)
    assert got.abs().max() > 1e-3  # it depends on x at all


@pytest.mark.parametrize("N", [1, 2])
def test_an_upstream_gradient_in_another_layout_gives_the_same(N):
    x, upstream = maps((N, 4, 6, 5), 1), maps((N, 4, 6, 5), 2)
    got = [gradient(lambda x: instance_norm(x, EPS), x, each) for each in (upstream, upstream.contiguous())]
    torch.testing.assert_close(*got, rtol=1e-12, atol=1e-12)
    assert got[0].is_contiguous(memory_format=torch.channels_last)


def test_it_compiles_as_one_graph_with_the_same_gradient():
    x, upstream = maps((2, 3, 8, 8), 1), maps((2, 3, 8, 8), 2)
    compiled = torch.compile(lambda x: instance_norm(x, EPS), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(gradient(compiled, x, upstream), gradient(by_the_formula, x, upstream))
