"""Norms share statistics: those of the whole image where all tiles are seen."""

import numpy as np
import pytest
import torch
from torch import nn

from ganvas.inference.tiling.plan import Plan, Tiling
from ganvas.inference.tiling.shared_norms import SharedNorm, compute_statistics, shared_norms
from ganvas.nn.layers import BatchNorm2d, set_norm_statistics
from ganvas.nn.unet import UNetGenerator


def test_norms_of_image_statistics_are_replaced_within_the_block():
    own, learned = BatchNorm2d(2), BatchNorm2d(2)
    own.statistics = "picture"
    network = nn.Sequential(own, nn.Sequential(nn.InstanceNorm2d(2)), learned)
    with pytest.raises(RuntimeError), shared_norms(network) as norms:
        assert [norm.norm for norm in norms] == [own, network[1][0].norm]
        assert network[2] is learned
        raise RuntimeError
    assert network[0] is own
    assert isinstance(network[1][0], nn.InstanceNorm2d)


def test_statistics_of_all_tiles_equal_those_of_the_image():
    torch.manual_seed(0)
    image = torch.rand(1, 2, 96, 160)
    image[..., :60] *= 0.2
    plan = Plan.of(96, 160, Tiling(32, 8), nn.Identity())
    for scale in (1, 2):
        with shared_norms(nn.Sequential(nn.InstanceNorm2d(2))) as (norm,):

            def translate(window, norm=norm, scale=scale):
                tile = image[..., window.top : window.top + 32, window.left : window.left + 32]
                return norm(tile[..., ::scale, ::scale])

            passes, apart = compute_statistics([norm], plan.sample(plan.tiles), translate, 1e-5)
        assert passes == 1
        assert 0 < apart < 1
        wanted = image[..., ::scale, ::scale].double().flatten(2)[0]
        tolerance = 1e-6 if scale == 1 else 0.02  # the weights of two pixels' mean against those of one of them
        assert torch.allclose(norm.mean.double(), wanted.mean(dim=1), atol=tolerance)
        assert torch.allclose(norm.variance.double(), wanted.var(dim=1, correction=0), atol=tolerance)


def test_a_small_deviation_beside_a_large_mean_is_kept():
    torch.manual_seed(0)
    deviation, mean = torch.tensor([0.1, 0.001]), torch.tensor([100.0, -7.0])
    image = torch.randn(1, 2, 64, 96) * deviation[:, None, None] + mean[:, None, None]
    plan = Plan.of(64, 96, Tiling(32, 0), nn.Identity())
    norm = SharedNorm(nn.InstanceNorm2d(2))

    def translate(window):
        norm(image[..., window.top : window.top + 32, window.left : window.left + 32])

    compute_statistics([norm], plan.sample(plan.tiles), translate, 1e-5)
    wanted = image.double().flatten(2)[0]
    assert torch.allclose(norm.mean.double(), wanted.mean(dim=1), rtol=1e-7, atol=0)
    assert torch.allclose(norm.variance.double(), wanted.var(dim=1, correction=0), rtol=1e-4, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("statistics", ["picture", "running"])
def test_each_layer_normalizes_by_shared_statistics(statistics):
    torch.manual_seed(0)
    network = UNetGenerator(base_channels=2, num_levels=3, norm="batch", dropout=0).eval()
    set_norm_statistics(network, statistics)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    whole = network(image)
    plan = Plan.of(64, 64, Tiling(64, 0), network)
    with shared_norms(network) as norms:
        passes, apart = compute_statistics(norms, plan.sample(1), lambda window: network(image), 1e-5)
        assert torch.allclose(network(image), whole, atol=1e-4)
    assert (len(norms), apart) == ((3, 0.0) if statistics == "picture" else (0, 0.0))
    assert passes <= len(norms)


@torch.inference_mode()
def test_learned_scale_and_shift_are_kept():
    norm = BatchNorm2d(3)
    norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
    norm.bias.copy_(torch.tensor([3.0, 0.0, 1.0]))
    norm.statistics = "picture"
    x = torch.rand(1, 3, 8, 8)
    expected = norm.eval()(x)
    shared = SharedNorm(norm)
    plan = Plan.of(8, 8, Tiling(8, 0), nn.Identity())
    compute_statistics([shared], plan.sample(1), lambda window: shared(x), 0)
    assert np.allclose(shared(x), expected, atol=1e-5)
