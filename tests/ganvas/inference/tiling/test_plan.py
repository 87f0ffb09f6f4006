"""Tiles cover an image on the network's grid, and their weights sum to one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganvas.errors import UserError
from ganvas.inference.tiling.plan import Axis, Grid, Plan, Tiling, grid_of
from ganvas.nn.layers import pad_to_multiple, reflect_positions
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

GRIDS = (Grid(), Grid(4, 8), Grid(32, 32))


@st.composite
def axes(draw):
    grid = draw(st.sampled_from(GRIDS))
    tile = draw(st.integers(grid.min_size, 150))
    overlap = draw(st.integers(0, -(-tile // grid.step) * grid.step - grid.step))
    return Axis(draw(st.integers(1, 400)), tile, overlap, grid)


@given(axes())
def test_weights_sum_to_one_and_neighbors_overlap(axis):
    total = np.zeros(axis.padded)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights >= 0).all()
        total[start : start + axis.size] += weights
    assert np.allclose(total, 1, atol=1e-12)
    assert all(a + axis.size - b >= axis.overlap for a, b in zip(axis.starts, axis.starts[1:], strict=False))


@given(axes())
def test_tiles_start_on_the_grid_and_cover_the_image(axis):
    assert axis.starts == sorted(set(axis.starts))
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == axis.padded
    assert all(number % axis.grid.step == 0 for number in (*axis.starts, axis.size, axis.padded))
    assert sum(axis.finished) == axis.padded


@given(axes())
def test_the_image_is_padded_as_by_the_network(axis):
    image = torch.arange(axis.length, dtype=torch.float64).expand(1, 1, 8, -1)
    padded, _, left = pad_to_multiple(image, axis.grid.step, at_least=axis.grid.min_size)
    assert (padded.shape[3], left) == (axis.padded, axis.pad_before)
    for start in axis.starts:
        assert axis.pixels(start).tolist() == padded[0, 0, 0, start : start + axis.size].tolist()
    after = axis.padded - axis.length - axis.pad_before
    everywhere = reflect_positions(axis.length, axis.pad_before, after, torch.device("cpu"))
    assert {int(pixel) for start in axis.starts for pixel in axis.pixels(start)} == set(everywhere.tolist())


def test_borders_are_where_weights_start_or_end():
    axis = Axis(1000, 512, 64, Grid(32, 32))  # 1024 mirrored out, 12 of them before; 512 = 448 + 64 to the next
    assert axis.starts == [0, 448, 512]
    assert axis.borders == [448 + 16 - 12, 512 - 16 - 12, 512 + 16 - 12, 960 - 16 - 12]
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        counts = np.flatnonzero(weights) + start - axis.pad_before
        ends = {int(counts[0]), int(counts[-1]) + 1} & set(range(1, 1000))
        assert ends <= set(axis.borders)


def test_the_grid_step_is_the_networks_stride():
    assert grid_of(UNetGenerator(base_channels=2, num_levels=5)) == Grid(32, 32)
    assert grid_of(ResNetGenerator(base_channels=2, num_blocks=1)) == Grid(4, 8)
    assert grid_of(torch.nn.Identity()) == Grid(1, 1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: UNetGenerator(base_channels=2, num_levels=4, norm="none"),
        lambda: ResNetGenerator(base_channels=2, norm="none"),
    ],
    ids=["unet", "resnet"],
)
def test_networks_are_equivariant_by_the_grid_step(build):
    torch.manual_seed(0)
    network = build()
    for weight in (parameter for parameter in network.parameters() if parameter.dim() == 4):
        torch.nn.init.kaiming_normal_(weight)  # so that the innermost level, of the largest step, has its say
    step = grid_of(network).step
    image = torch.rand(1, 3, 256, 256) * 2 - 1
    inner = slice(96, 160)
    with torch.inference_mode():
        here = network.eval()(image)[:, :, inner, inner]
        moved, half = (
            network(image.roll((by, by), (2, 3)))[:, :, 96 + by : 160 + by, 96 + by : 160 + by]
            for by in (step, step // 2)
        )
    assert torch.allclose(here, moved, atol=1e-4)
    assert (here - half).abs().max() > 0.1


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 40))
def test_a_sample_of_tiles_is_spread_over_the_image(height, width, count):
    plan = Plan.of(height, width, Tiling(64, 16), torch.nn.Identity())
    sample = plan.sample(count)
    places = {(window.top, window.left) for window in sample}
    assert len(places) == len(sample) <= count
    assert len(sample) >= min(count, plan.tiles) / 2
    assert len(plan.sample(plan.tiles)) == plan.tiles


def test_a_sample_alternates_like_a_chessboard():
    plan = Plan.of(1000, 1000, Tiling(100, 0), torch.nn.Identity())
    for count in (16, 25, 100):
        sample = plan.sample(count)
        side = round(count**0.5)
        tops, lefts = (sorted({getattr(window, name) for window in sample}) for name in ("top", "left"))
        assert (len(tops), len(lefts)) == (side, side)
        colors = [(tops.index(window.top) + lefts.index(window.left)) % 2 for window in sample]
        assert colors == [number % 2 for number in range(count)]


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        ((16, 4), "needs 32"),
        ((64, -1), "overlap is -1"),
        ((64, 64), "--tile 96"),
        ((64, 40), "--tile 96"),
        ((64, 99), "--tile 160"),
    ],
)
def test_invalid_tile_sizes_are_refused(tiling, message):
    network = UNetGenerator(base_channels=2, num_levels=5)
    with pytest.raises(UserError, match=message) as raised:
        Tiling(*tiling).check(network)
    if message.startswith("--tile"):
        advised = int(message.split()[1])
        Tiling(advised, tiling[1]).check(network)
        with pytest.raises(UserError):
            Tiling(advised - 32, tiling[1]).check(network)
        assert "Give --tile" in str(raised.value)


@pytest.mark.parametrize(
    ("length", "unet", "resnet"), [(1, 32, 8), (32, 32, 32), (33, 64, 36), (1100, 1120, 1100), (1101, 1120, 1104)]
)
def test_a_side_is_padded_as_the_network_pads_it(length, unet, resnet):
    networks = UNetGenerator(3, 3, base_channels=2, num_levels=5), ResNetGenerator(3, 3, base_channels=2, num_blocks=1)
    assert [grid_of(network).padded(length) for network in networks] == [unet, resnet]
