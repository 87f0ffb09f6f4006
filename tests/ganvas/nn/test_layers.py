import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ganvas.nn.layers import (
    BatchNorm2d,
    BlurPool2d,
    DownBlock,
    ReflectPad2d,
    ResidualBlock,
    UpBlock,
    make_blurred_upsampling,
    make_norm,
    make_upsampling,
    needs_bias,
    pad_to_multiple,
    reflect_pad,
    reflect_positions,
    set_norm_statistics,
)

SIDES = st.integers(1, 9)
PADDINGS = st.integers(0, 40)


def numbered(*shape: int) -> Tensor:
    """Return a tensor of distinct values."""
    return torch.arange(float(np.prod(shape))).reshape(shape)


# ---- Reflection padding ----


@given(SIDES, PADDINGS, PADDINGS)
@settings(deadline=None)
def test_reflect_positions_by_the_formula(n: int, before: int, after: int) -> None:
    # A triangle wave of period 2n - 2 that is 0 at 0 and n - 1 at n - 1.
    i = np.arange(-before, n + after)
    expected = n - 1 - np.abs((i % (2 * n - 2)) - (n - 1)) if n > 1 else np.zeros_like(i)
    assert reflect_positions(n, before, after, torch.device("cpu")).tolist() == expected.tolist()


@given(SIDES, SIDES, PADDINGS, PADDINGS, PADDINGS, PADDINGS)
@settings(deadline=None)
def test_reflect_pad_equals_numpys(H: int, W: int, left: int, right: int, top: int, bottom: int) -> None:
    x = numbered(2, 2, H, W)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")
    np.testing.assert_array_equal(reflect_pad(x, left, right, top, bottom).numpy(), expected)


def test_reflection_layer_pads_every_side() -> None:
    x = numbered(1, 3, 5, 4)
    assert torch.equal(ReflectPad2d(3)(x), F.pad(x, (3, 3, 3, 3), mode="reflect"))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 32]))
@settings(deadline=None)
def test_padding_to_a_multiple_keeps_the_image_in_the_middle(H: int, W: int, multiple: int) -> None:
    x = numbered(1, 1, H, W)
    padded, top, left = pad_to_multiple(x, multiple)
    rows, columns = padded.shape[-2:]
    assert (rows, columns) == (-(-H // multiple) * multiple, -(-W // multiple) * multiple)
    assert torch.equal(padded[..., top : top + H, left : left + W], x)
    assert rows - H - 2 * top in (0, 1)
    assert columns - W - 2 * left in (0, 1)


def test_an_image_that_fits_is_not_copied() -> None:
    x = numbered(1, 1, 8, 16)
    padded, top, left = pad_to_multiple(x, 8)
    assert padded is x
    assert (top, left) == (0, 0)


# ---- Norms ----


def test_norms_by_name() -> None:
    batch, instance = make_norm("batch", 5), make_norm("instance", 5)
    assert isinstance(batch, nn.BatchNorm2d)
    assert isinstance(instance, nn.InstanceNorm2d)
    assert [p.numel() for p in batch.parameters()] == [5, 5]
    assert not list(instance.parameters())
    assert not list(instance.buffers())
    assert isinstance(make_norm("none", 5), nn.Identity)
    assert [needs_bias("batch"), needs_bias("instance"), needs_bias("none")] == [False, True, True]
    groups = {channels: make_norm("group", channels).num_groups for channels in (4, 16, 64, 96, 250)}
    assert groups == {4: 1, 16: 1, 64: 4, 96: 6, 250: 5}  # 16 channels each, where that divides them
    with pytest.raises(ValueError, match=r"'weight'.*'batch', 'instance', 'group', 'layer' and 'none'"):
        make_norm("weight", 5)


def shifted_norm() -> BatchNorm2d:
    norm = BatchNorm2d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.5]))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(torch.tensor([4.0, -2.0]))
        norm.running_var.copy_(torch.tensor([9.0, 0.25]))
    return norm


def normalized(x: Tensor, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    scale, shift = np.array([2.0, 3.0]).reshape(1, 2, 1, 1), np.array([-1.0, 0.5]).reshape(1, 2, 1, 1)
    return (x.numpy() - mean) / np.sqrt(variance + 1e-5) * scale + shift


def test_batch_norm_can_use_each_images_own_statistics() -> None:
    x = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)) * 7 + 3
    norm = shifted_norm().eval()

    running = normalized(x, np.array([4.0, -2.0]).reshape(1, 2, 1, 1), np.array([9.0, 0.25]).reshape(1, 2, 1, 1))
    np.testing.assert_allclose(norm(x).detach().numpy(), running, rtol=1e-4, atol=1e-5)

    set_norm_statistics(nn.Sequential(nn.Sequential(norm)), "picture")
    a = x.numpy()
    image = normalized(x, a.mean(axis=(2, 3), keepdims=True), a.var(axis=(2, 3), keepdims=True))
    np.testing.assert_allclose(norm(x).detach().numpy(), image, rtol=1e-4, atol=1e-5)

    set_norm_statistics(norm, "running")
    np.testing.assert_allclose(norm(x).detach().numpy(), running, rtol=1e-4, atol=1e-5)


def test_choice_of_statistics_changes_nothing_in_training() -> None:
    x = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    norm = shifted_norm().train()
    set_norm_statistics(norm, "picture")
    a = x.numpy()
    batch = normalized(x, a.mean(axis=(0, 2, 3), keepdims=True), a.var(axis=(0, 2, 3), keepdims=True))
    np.testing.assert_allclose(norm(x).detach().numpy(), batch, rtol=1e-4, atol=1e-5)
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 1


def test_layer_norm_normalizes_the_channels_of_each_pixel() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (2, 5, 4, 3)).astype(np.float32))
    a = x.numpy()
    expected = (a - a.mean(axis=1, keepdims=True)) / np.sqrt(a.var(axis=1, keepdims=True) + 1e-5)
    for layout in (torch.contiguous_format, torch.channels_last):
        out = make_norm("layer", 5)(x.contiguous(memory_format=layout))
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_layer_norm_keeps_a_huge_value_from_shrinking_the_others() -> None:
    x = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    spiked = x.clone()
    spiked[0, :, 2, 3] = torch.tensor([1e4, 0.0, 0.0, 0.0])
    elsewhere = torch.ones(8, 8, dtype=torch.bool)
    elsewhere[2, 3] = False
    changes = {}
    for norm in ("layer", "instance"):
        layer = make_norm(norm, 4)
        changes[norm] = (layer(spiked) - layer(x))[0, 0, elsewhere].abs().max().item()
    assert changes["layer"] == 0
    assert changes["instance"] > 1


# ---- Blocks ----


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_down_block_halves(norm: str) -> None:
    block = DownBlock(3, 8, norm=norm)
    assert block(torch.zeros(2, 3, 10, 6)).shape == (2, 8, 5, 3)
    assert (block[0].bias is not None) == (norm != "batch")
    assert DownBlock(3, 8, norm=norm, bias=False)[0].bias is None


def test_down_block_has_the_papers_slope() -> None:
    block = DownBlock(1, 1, norm="none")
    with torch.no_grad():
        block[0].weight.fill_(1)
        block[0].bias.zero_()
    inner = block(torch.full((1, 1, 6, 6), -1.0))[0, 0, 1, 1].item()
    assert inner == pytest.approx(0.2 * -16)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
def test_up_block_doubles(norm: str, upsampling: str) -> None:
    block = UpBlock(6, 4, norm=norm, upsampling=upsampling, dropout=0.5)
    assert block(torch.zeros(2, 6, 5, 3)).shape == (2, 4, 10, 6)
    assert [module.p for module in block.modules() if isinstance(module, nn.Dropout)] == [0.5]
    (convolution,) = [module for module in block.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert (convolution.bias is not None) == (norm != "batch")
    assert not [module for module in UpBlock(6, 4).modules() if isinstance(module, nn.Dropout)]


def test_up_block_begins_with_a_relu() -> None:
    block = UpBlock(1, 1, norm="none", bias=False)
    assert torch.equal(block(torch.full((1, 1, 3, 3), -1.0)), torch.zeros(1, 1, 6, 6))


def test_resizing_reaches_every_inner_pixel_with_the_same_weights() -> None:
    resize = make_upsampling(1, 1, upsampling="resize", bias=False)
    with torch.no_grad():
        for parameter in resize.parameters():
            parameter.fill_(1)
    assert torch.equal(resize(torch.ones(1, 1, 4, 4))[..., 1:-1, 1:-1], torch.full((1, 1, 6, 6), 9.0))


def test_transposed_convolution_is_torchs() -> None:
    up = make_upsampling(3, 5, upsampling="transpose", bias=True)
    plain = nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1)
    plain.load_state_dict(up.state_dict())
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(up(x), plain(x))


def test_unknown_upsampling() -> None:
    with pytest.raises(ValueError, match=r"'bilinear'.*'transpose' and, for even sizes, 'resize'"):
        make_upsampling(1, 1, upsampling="bilinear", bias=True)


@pytest.mark.parametrize(("norm", "biases"), [("batch", 0), ("instance", 2), ("none", 2)])
def test_residual_block_adds_to_its_input(norm: str, biases: int) -> None:
    block = ResidualBlock(4, norm=norm, dropout=0.5)
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    assert sum(convolution.bias is not None for convolution in convolutions) == biases
    assert [module.p for module in block.modules() if isinstance(module, nn.Dropout)] == [0.5]
    x = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert block(x).shape == x.shape
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    assert torch.equal(block.eval()(x), x)


def test_residual_block_reflects_at_the_border() -> None:
    block = ResidualBlock(1, norm="none")
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(0)
        for convolution in (block.body[1], block.body[6]):
            convolution.weight.fill_(1)
    x = numbered(1, 1, 4, 5)

    def box(a: np.ndarray) -> np.ndarray:
        padded = np.pad(a, 1, mode="reflect")
        return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).sum(axis=(2, 3))

    np.testing.assert_allclose(block(x)[0, 0].detach().numpy(), x[0, 0].numpy() + box(box(x[0, 0].numpy())))


# ---- Blurred resampling ----


@pytest.mark.parametrize(("H", "W"), [(8, 8), (7, 10), (2, 3), (1, 1)])
def test_blur_pool_by_its_filter(H: int, W: int) -> None:
    x = torch.randn(2, 3, H, W, generator=torch.Generator().manual_seed(0))
    rows, columns = (np.pad(np.arange(n), 1, mode="reflect" if n > 1 else "edge") for n in (H, W))
    expected = np.zeros((2, 3, -(-H // 2), -(-W // 2)))
    weights = [1 / 4, 1 / 2, 1 / 4]
    for y in range(expected.shape[2]):
        for column in range(expected.shape[3]):
            for i, above in enumerate(weights):
                for j, left in enumerate(weights):
                    pixel = x[:, :, rows[2 * y + i], columns[2 * column + j]].numpy()
                    expected[:, :, y, column] += above * left * pixel
    np.testing.assert_allclose(BlurPool2d()(x).numpy(), expected, atol=1e-6)


def test_blur_pool_removes_the_finest_pattern() -> None:
    board = torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 1, 16).expand(1, 1, 16, 16)
    assert BlurPool2d()(board).abs().max() < 1e-6
    assert board[..., ::2, ::2].abs().min() == 1  # what a stride alone would keep of it


def test_blurred_upsampling_by_its_filter() -> None:
    """Zeros between the pixels, then [1, 3, 3, 1] / 4 along both axes."""
    x = torch.randn(1, 1, 6, 9, generator=torch.Generator().manual_seed(0))
    wider = F.pad(x, (1, 1, 1, 1), mode="replicate")
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    expected = F.conv_transpose2d(wider, torch.outer(taps, taps)[None, None], stride=2, padding=1)[..., 2:-2, 2:-2]
    torch.testing.assert_close(make_blurred_upsampling()(x), expected)


def test_blurred_down_block_halves() -> None:
    block = DownBlock(3, 4, resampling="blur")
    assert block(torch.zeros(2, 3, 16, 16)).shape == (2, 4, 8, 8)
    assert block[0].stride == (1, 1)
