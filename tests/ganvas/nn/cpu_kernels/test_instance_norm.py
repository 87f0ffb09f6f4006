"""Instance norm on a CPU against its formula: values, gradients and second derivatives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ganvas.nn.cpu_kernels.instance_norm import CpuInstanceNorm2d, instance_norm

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


@given(N=st.integers(1, 3), C=st.integers(1, 6), H=st.integers(2, 9), W=st.integers(1, 9))
def test_values_and_gradient_are_the_formulas(N, C, H, W):
    x, upstream = (maps((N, C, H, W), seed, 2.0) for seed in (1, 2))
    torch.testing.assert_close(instance_norm(x, EPS), by_the_formula(x), rtol=1e-7, atol=1e-7)
    got = gradient(lambda x: instance_norm(x, EPS), x, upstream)
    torch.testing.assert_close(got, gradient(by_the_formula, x, upstream), rtol=1e-7, atol=1e-7)


# Several chunks, several images in a chunk, as many positions as torch's kernel is used for, and one row more.
@pytest.mark.parametrize("shape", [(2, 64, 70, 80), (3, 16, 20, 30), (1, 2, 256, 256), (1, 2, 257, 256)])
@pytest.mark.parametrize(
    ("dtype", "mean", "most"),
    [
        (torch.bfloat16, 0.0, 1.8e-3),  # rounding alone: 1.7e-3
        (torch.bfloat16, 5.0, 1.8e-3),
        (torch.float16, 0.0, 2.5e-4),  # 2.1e-4 to 2.3e-4
        (torch.float16, 5.0, 2.5e-4),
        (torch.float32, 0.0, 3e-7),  # 3e-8
        (torch.float32, 100.0, 2e-5),  # of means that are a hundred deviations large, as much more is lost
        (torch.float32, 1000.0, 2e-4),
    ],
)
def test_values_and_gradient_err_by_the_rounding_of_their_type_alone(dtype, mean, most, shape):
    x, upstream = maps(shape, 1, mean).to(dtype), maps(shape, 2).to(dtype)
    values = instance_norm(x, EPS)
    got = gradient(lambda x: instance_norm(x, EPS), x, upstream)
    assert values.dtype == got.dtype == dtype
    exact_values = by_the_formula(x.double())
    exact = gradient(by_the_formula, x.double(), upstream.double())
    for found, wanted in ((values, exact_values), (got, exact)):
        error, rounding = ((each.double() - wanted).norm() / wanted.norm() for each in (found, wanted.to(dtype)))
        assert 0.9 * rounding <= error < most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("side", [200, 256, 1100])
def test_flat_maps_become_zero(dtype, side):
    x = torch.full((1, 8, side, side), 0.7, dtype=dtype).contiguous(memory_format=torch.channels_last)
    assert instance_norm(x, EPS).abs().max() < 1e-4  # rounding of the mean, over the root of eps


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("side", [16, 256, 300])
def test_nearly_flat_maps_of_bfloat16_keep_their_detail(side, seed):
    rng = torch.Generator().manual_seed(seed)
    level = float(torch.rand((), generator=rng) * 100)
    x = torch.full((2, 4, side, side), level).bfloat16().contiguous(memory_format=torch.channels_last)
    x[:, :, 0, 0] *= 1.01  # a step of the type's
    exact = by_the_formula(x.double())
    assert exact.abs().max() > 3
    torch.testing.assert_close(instance_norm(x, EPS).double(), exact, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_maps_of_one_pixel_become_zero_and_pass_no_gradient(dtype):
    x = maps((2, 3, 1, 1), 1).to(dtype).requires_grad_()
    y = instance_norm(x, EPS)
    y.sum().backward()
    assert x.grad is not None and max(y.abs().max(), x.grad.abs().max()) < (1e-12 if dtype != torch.bfloat16 else 1e-4)


@pytest.mark.parametrize(
    ("dtype", "height", "calls"),
    [(torch.bfloat16, 256, 2), (torch.bfloat16, 257, 0), (torch.float32, 256, 0), (torch.float16, 16, 0)],
)
def test_torchs_kernel_is_used_for_each_image_whose_sums_are_exact(dtype, height, calls, monkeypatch):
    kernel, taken = torch.native_batch_norm, []
    monkeypatch.setattr(torch, "native_batch_norm", lambda *args, **out: taken.append(args[0]) or kernel(*args, **out))
    instance_norm(maps((2, 3, height, 256), 1).to(dtype), EPS)
    assert [list(image.shape) for image in taken] == [[1, 3, height, 256]] * calls


@pytest.mark.parametrize("shape", [(1, 4, 6, 5), (2, 1, 6, 5), (1, 1, 6, 5)])
def test_strides_that_mean_the_same_give_the_same(shape):
    usual, upstream = maps(shape, 1).bfloat16(), maps(shape, 2).bfloat16()
    N, C, _, W = shape
    strides = [1 if N == 1 else usual.stride(0), 1 if C > 1 else 7, W * C, C]  # of one image, or channel, any do
    unusual = usual.as_strided(shape, strides)
    assert unusual.is_contiguous(memory_format=torch.channels_last) and torch.equal(unusual, usual)
    for function in (lambda x: instance_norm(x, EPS), lambda x: gradient(lambda y: instance_norm(y, EPS), x, upstream)):
        assert torch.equal(function(unusual), function(usual))


def test_inputs_are_not_changed():
    x, upstream = maps((2, 3, 6, 5), 1).requires_grad_(), maps((2, 3, 6, 5), 2)
    before = x.detach().clone(), upstream.clone()
    instance_norm(x, EPS).backward(upstream)
    assert torch.equal(x.detach(), before[0])
    assert torch.equal(upstream, before[1])


def test_an_empty_batch():
    assert instance_norm(torch.zeros(0, 3, 4, 4), EPS).shape == (0, 3, 4, 4)


def test_it_can_be_differentiated_twice():
    x = maps((2, 3, 4, 3), 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: instance_norm(x, EPS), x)
    assert torch.autograd.gradgradcheck(lambda x: instance_norm(x, EPS), x)


def test_a_hook_on_the_input_runs_once_where_the_gradient_is_differentiated():
    x, calls = maps((1, 2, 4, 4), 1).requires_grad_(), []
    middle = x * 1
    middle.register_hook(lambda grad: calls.append(grad))
    torch.autograd.grad(instance_norm(middle, EPS).square().sum(), x, create_graph=True)
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("N", [1, 2])
def test_an_upstream_gradient_in_another_layout_gives_the_same(N, dtype):
    x, upstream = maps((N, 4, 6, 5), 1).to(dtype), maps((N, 4, 6, 5), 2).to(dtype)
    got = [gradient(lambda x: instance_norm(x, EPS), x, each) for each in (upstream, upstream.contiguous())]
    torch.testing.assert_close(*got, rtol=1e-12, atol=1e-12)
    assert got[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_it_compiles_as_one_graph_with_the_same_gradient():
    x, upstream = maps((2, 3, 8, 8), 1), maps((2, 3, 8, 8), 2)
    compiled = torch.compile(lambda x: instance_norm(x, EPS), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(gradient(compiled, x, upstream), gradient(by_the_formula, x, upstream))


@pytest.mark.slow
@pytest.mark.essential
def test_an_exported_program_holds_one_norm_that_other_runtimes_know():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), CpuInstanceNorm2d(4)).to(memory_format=torch.channels_last)
    sizes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    example = maps((2, 3, 9, 7), 1).float()
    program = torch.export.export(network, (example,), dynamic_shapes=sizes)
    calls = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert torch.ops.aten.group_norm.default in calls
    assert not {str(call) for call in calls} & {"aten.copy_.default", "aten.split.Tensor"}
    torch.testing.assert_close(program.module()(example), network(example))


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace:FutureWarning"
)  # tensorboard traces by it
def test_torchscript_traces_it():
    network = CpuInstanceNorm2d(3)
    x = maps((2, 3, 9, 7), 1).float()
    torch.testing.assert_close(torch.jit.trace(network, x)(x), network(x))


def test_checkpointing_gives_the_same_gradient():
    x, upstream = maps((2, 3, 8, 8), 1), maps((2, 3, 8, 8), 2)
    again = gradient(lambda x: checkpoint(instance_norm, x, EPS, use_reentrant=False), x, upstream)
    assert torch.equal(again, gradient(lambda x: instance_norm(x, EPS), x, upstream))
