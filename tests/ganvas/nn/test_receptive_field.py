import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ganvas.nn.layers import ReflectPad2d
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from ganvas.nn.receptive_field import (
    Layer,
    ReceptiveField,
    find_num_layers,
    measured_receptive_field,
    patchgan_layers,
    receptive_field,
    strided_layers,
    trace,
)
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

PATCHGAN_SIZES = {1: 16, 2: 34, 3: 70, 4: 142, 5: 286, 6: 574}


# ---- Published tables ----


@pytest.mark.parametrize(("num_layers", "size"), [(1, 4), (2, 10), (3, 22), (4, 46), (5, 94)])
def test_receptive_fields_of_strided_stacks(num_layers: int, size: int) -> None:
    field = receptive_field(strided_layers(num_layers))
    assert (field.size, field.jump) == (size, 2**num_layers)


@pytest.mark.parametrize(("num_layers", "size"), PATCHGAN_SIZES.items())
def test_receptive_fields_of_patchgans_by_list_and_module(num_layers: int, size: int) -> None:
    by_list = receptive_field(patchgan_layers(num_layers))
    assert by_list.size == size
    assert receptive_field(PatchDiscriminator(base_channels=1, num_layers=num_layers)) == by_list


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_receptive_fields_of_patchgans_by_gradients(num_layers: int) -> None:
    network = PatchDiscriminator(3, base_channels=1, num_layers=num_layers, norm="instance")
    measured = measured_receptive_field(network, 2 * PATCHGAN_SIZES[num_layers] + 16)
    assert measured.size == PATCHGAN_SIZES[num_layers]
    assert measured == receptive_field(network)


def test_first_logit_of_the_70_pixel_patchgan() -> None:
    measured = measured_receptive_field(PatchDiscriminator(base_channels=2), 160)
    for field in (receptive_field(patchgan_layers(3)), measured):
        assert (field.size, field.jump, field.first_center) == (70, 8, 11.5)
        assert field.span(0) == (-23, 46)
        assert field.span(29) == (-23 + 8 * 29, 46 + 8 * 29)


def test_pixel_discriminator_sees_one_pixel() -> None:
    network = PixelDiscriminator(base_channels=2)
    for field in (receptive_field(patchgan_layers(0)), receptive_field(network), measured_receptive_field(network, 9)):
        assert (field.size, field.jump, field.first_center) == (1, 1, 0)


def test_norms_that_are_not_frozen_would_hide_the_field() -> None:
    # The trap: through instance norm, the gradient of one logit fills a 160-pixel image.
    network = PatchDiscriminator(3, base_channels=4, norm="instance")
    image = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = network(image)
    logits[0, 0, 9, 9].backward()
    assert image.grad is not None
    assert len(image.grad[0].sum(0).sum(1).nonzero()) == 160
    assert measured_receptive_field(network, 160).size == 70


# ---- The three ways against each other and against the textbook ----


def backwards(layers: list[Layer]) -> int:
    """Size by the textbook's step from the output back: r_in = k + (r_out - 1) * s."""
    size = 1
    for layer in reversed(layers):
        size = layer.dilation * (layer.kernel - 1) + 1 + (size - 1) * layer.stride
    return size


def first_center_forwards(layers: list[Layer]) -> float:
    """Center of unit 0 by adding each layer's offset times the jump so far."""
    centre, jump = 0.0, 1
    for layer in layers:
        assert isinstance(layer.padding, int)
        centre += (layer.dilation * (layer.kernel - 1) / 2 - layer.padding) * jump
        jump *= layer.stride
    return centre


def stacks(*, transposed: bool) -> st.SearchStrategy[list[Layer]]:
    return st.lists(
        st.builds(
            Layer,
            kernel=st.integers(1, 5),
            stride=st.integers(1, 3),
            dilation=st.integers(1, 3),
            padding=st.integers(0, 3),
            transposed=st.booleans() if transposed else st.just(False),
        ),
        min_size=1,
        max_size=4,
    )


def as_module(layers: list[Layer]) -> nn.Sequential:
    return nn.Sequential(
        *(
            (nn.ConvTranspose2d if layer.transposed else nn.Conv2d)(
                1, 1, layer.kernel, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
            )
            for layer in layers
        )
    )


@given(stacks(transposed=False))
@settings(deadline=None)
def test_convolutions_agree_with_the_textbook(layers: list[Layer]) -> None:
    field = receptive_field(layers)
    assert field.size == backwards(layers)
    assert field.jump == math.prod(layer.stride for layer in layers)
    assert field.first_center == first_center_forwards(layers)
    assert receptive_field([(x.kernel, x.stride, x.dilation, x.padding) for x in layers]) == field


@given(stacks(transposed=True))
@settings(deadline=None, max_examples=100)
@pytest.mark.slow
def test_list_module_and_gradients_agree(layers: list[Layer]) -> None:
    by_list = receptive_field(layers)
    network = as_module(layers)
    assert receptive_field(network) == by_list

    assume(by_list.size > 0)  # else there is nothing to measure
    image_size = 2 * by_list.size + 4 * by_list.shift + 4 * abs(round(by_list.first_center)) + 40
    assume(image_size * max(1, 1 / by_list.jump) < 700)
    assert measured_receptive_field(network, image_size, period=by_list.period) == by_list


@given(out=st.integers(1, 9), kernel=st.integers(1, 9), stride=st.integers(1, 4))
@settings(deadline=None)
def test_transposed_convolution_under_a_window(out: int, kernel: int, stride: int) -> None:
    # A window of `out` units, at the phase where it reaches furthest: r_in = floor((r_out + k - 2) / s) + 1. Where the
    # stride is wider than the kernel, the formula needs a window that finds an input at all.
    assume(kernel >= stride)
    field = receptive_field([Layer(kernel, stride, transposed=True), Layer(out)])
    assert field.size == (out + kernel - 2) // stride + 1


def test_stride_wider_than_the_kernel_leaves_units_that_see_nothing() -> None:
    field = receptive_field([Layer(kernel=1, stride=3, transposed=True)])
    assert field.spans == ((0, 0), None, None)
    assert [field.span(unit) for unit in (-3, 3, 4)] == [(-1, -1), (1, 1), None]
    assert (field.size, field.jump) == (1, pytest.approx(1 / 3))
    nothing = field.through(Layer(kernel=1, stride=3, padding=-1))
    assert nothing.size == 0
    assert math.isnan(nothing.first_center)


class Crop(nn.Module):
    def __init__(self, *index: object) -> None:
        super().__init__()
        self.index = index if len(index) > 1 else index[0]

    def forward(self, x: Tensor) -> Tensor:
        return x[self.index]


class Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.convolution = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.convolution(x), x)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 1, 1),
        nn.Upsample(scale_factor=2),
        nn.Upsample(scale_factor=3, mode="nearest-exact"),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=3, mode="bilinear"),
        nn.Upsample(scale_factor=4, mode="bilinear"),
        nn.ReflectionPad2d(3),
        nn.ReplicationPad2d(2),
        nn.CircularPad2d(2),
        nn.ZeroPad2d((1, 1, 4, 2)),
        ReflectPad2d(3),
        nn.Conv2d(2, 2, 4, padding="same"),
        nn.Conv2d(2, 2, 3, padding="valid"),
        nn.Conv2d(2, 2, 3, padding=2, padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, groups=2, dilation=2),
        nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1),
        Crop(..., slice(2, -1), slice(None)),
        Crop(slice(None), slice(None), slice(1, None), slice(1, None)),
        Crop(slice(None), slice(None), slice(1, None, 2)),
        Crop(...),
        Function(lambda y, x: x + y),
        Function(lambda y, x: torch.cat([x, y], 1)),
        Function(lambda y, x: torch.cat(tensors=[x, y], dim=-3)),
        Function(lambda y, x: torch.tanh(1 - 0.5 * y)),
        Function(lambda y, x: F.interpolate(y, size=(2 * y.shape[2], 2 * y.shape[3]))),
    ],
    ids=lambda layer: str(layer).replace("\n", ""),
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_all_layers_agree_with_gradients(layer: nn.Module) -> None:
    # Between two convolutions, so that phases and offsets show.
    network = nn.Sequential(
        nn.Conv2d(2, 2, 3, stride=2), layer, nn.LazyConv2d(2, 2, padding=1), nn.InstanceNorm2d(2), nn.LeakyReLU(0.2)
    )
    network(torch.zeros(1, 2, 64, 64))
    for axis in ("height", "width"):
        field = receptive_field(network, axis)
        assert measured_receptive_field(network, 64, period=field.period, axis=axis) == field


@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_unet_agrees_with_gradients(num_levels: int, upsampling: str) -> None:
    network = UNetGenerator(base_channels=1, num_levels=num_levels, upsampling=upsampling)
    field = receptive_field(network)
    assert field.period == 2**num_levels
    assert measured_receptive_field(network, 128, period=field.period) == field


@pytest.mark.parametrize("num_levels", range(1, 9))
def test_unet_sees_what_its_longest_path_sees(num_levels: int) -> None:
    size = 1
    for _ in range(num_levels):
        size = (size + 4 - 2) // 2 + 1  # a transposed 4x4 convolution of stride 2
    for _ in range(num_levels):
        size = 4 + (size - 1) * 2
    field = receptive_field(UNetGenerator(base_channels=1, num_levels=num_levels))
    assert (field.size, field.jump, field.first_center) == (size, 1, 0)


@pytest.mark.parametrize(
    "options", [{"upsampling": "transpose"}, {"upsampling": "resize"}, {"resampling": "blur"}, {"norm": "layer"}]
)
def test_resnet_agrees_with_gradients(options: dict[str, str]) -> None:
    network = ResNetGenerator(base_channels=1, num_blocks=2, **options)
    field = receptive_field(network)
    assert field == receptive_field(ResNetGenerator(base_channels=1, num_blocks=2, **options | {"norm": "none"}))
    assert measured_receptive_field(network, 144, period=field.period) == field


def test_resnet_of_nine_blocks() -> None:
    size = 7  # c7s1-3
    for _ in ("u64", "u128"):
        size = (size + 3 - 2) // 2 + 1
    size += 9 * 2 * 2  # two 3x3 convolutions a block
    for _ in ("d256", "d128"):
        size = 3 + (size - 1) * 2
    field = receptive_field(ResNetGenerator(base_channels=1))
    assert (field.size, field.jump) == (size + 6, 1)


def test_features_that_cut_compares_see_as_much_as_in_the_paper() -> None:
    """Park et al. 2020, App. C.2: 9, 15, 35 and 99 pixels, besides single ones."""
    network = ResNetGenerator(base_channels=1, resampling="blur")
    assert network.feature_layers == (0, 4, 8, 12, 16)
    fields = [receptive_field(network.layers[: layer + 1]) for layer in network.feature_layers[1:]]
    assert [field.size for field in fields] == [9, 15, 35, 99]
    assert [field.jump for field in fields] == [1, 2, 4, 4]


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_blurred_patchgans_see_two_more_units_at_each_layer(num_layers: int) -> None:
    network = PatchDiscriminator(3, base_channels=1, num_layers=num_layers, norm="instance", resampling="blur")
    field = receptive_field(network)
    extra = sum(2 * 2**layer for layer in range(num_layers))  # a [1, 2, 1] at each jump
    assert (field.size, field.jump) == (PATCHGAN_SIZES[num_layers] + extra, 2**num_layers)
    assert measured_receptive_field(network, 2 * field.size + 16) == field


# ---- What is refused ----


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1)), "'adaptive_avg_pool2d', called in module '1'"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), "'flatten'"),
        (Function(lambda y, x: y - y.mean()), "'mean'"),
        (Function(lambda y, x: torch.cat([x, y], dim=2)), "along height or width"),
        (Function(lambda y, x: y[:, :, 0]), "single row"),
        (Function(lambda y, x: F.pad(y, (0, 0, 0, 0, 1, 1))), "more than height and width"),
        (Function(lambda y, x: F.interpolate(y, scale_factor=1.5)), "1.5"),
        (Function(lambda y, x: F.interpolate(y, scale_factor=2, mode="bicubic")), "bilinear"),
        (Function(lambda y, x: y[..., ::2, ::2] + F.avg_pool2d(x, 2)[..., :1, :1]), "differ in size"),
        (Function(lambda y, x: y[..., ::2, ::2] + x[..., :2048, :2048]), "cannot be joined"),
        (Function(lambda y, x: y.index_select(2, torch.tensor([0, 2, 1]))), "do not contain the image"),
        (Function(lambda y, x: (y, x)), "returns a tuple"),
        (nn.Conv2d(1, 1, (3, 5)), "axis='width'"),
    ],
)
def test_networks_without_a_fixed_neighborhood_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        receptive_field(network)


def test_height_and_width_can_differ() -> None:
    network = nn.Conv2d(1, 1, (3, 5), stride=(2, 1), padding=(0, 2))
    assert receptive_field(network, "height") == receptive_field([Layer(3, 2)])
    assert receptive_field(network, "width") == receptive_field([Layer(5, padding=2)])


@pytest.mark.parametrize(("image_size", "message"), [(70, "border"), (30, "border|units")])
def test_measuring_needs_an_image_larger_than_the_receptive_field(image_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measured_receptive_field(PatchDiscriminator(base_channels=1), image_size)


def test_measuring_notices_a_wrong_period() -> None:
    with pytest.raises(ValueError, match="period=2"):
        measured_receptive_field(nn.ConvTranspose2d(1, 1, 1, stride=3), 32, period=2)


@pytest.mark.parametrize("values", [(0, 1, 1), (3, 0, 1), (3, 1, 0)])
def test_layers_have_positive_sizes(values: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Layer(*values)


# ---- What reading leaves behind ----


def test_reading_does_not_touch_the_network() -> None:
    network = PatchDiscriminator(base_channels=1).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    receptive_field(network)
    measured_receptive_field(network, 160)
    assert network.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_convolution_with_its_own_padding() -> None:
    class Padded(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.pad(x, (1, 2, 1, 2)))

    assert receptive_field(Padded(1, 1, 5, 2)) == receptive_field([Layer(5, 2, 1, (1, 2))])


# ---- The table ----


def test_table_of_the_patchgan() -> None:
    rows = trace(PatchDiscriminator(base_channels=1), (256, 128))
    assert [row.name for row in rows] == ["layers.0.0", "layers.1.0", "layers.2.0", "layers.3", "layers.6"]
    assert [row.receptive_field.size for row in rows] == [4, 10, 22, 46, 70]
    assert [row.receptive_field.jump for row in rows] == [2, 4, 8, 8, 8]
    assert [row.receptive_field.first_center for row in rows] == [0.5, 1.5, 3.5, 7.5, 11.5]
    assert [row.output_size for row in rows] == [(128, 64), (64, 32), (32, 16), (31, 15), (30, 14)]
    assert str(rows[0]) == "conv 4, stride 2, pad 1"


@pytest.mark.parametrize("size", [(37, 100), (64, 64), (1, 1), (5, 33)])
@pytest.mark.parametrize(
    "network", [UNetGenerator(base_channels=1, num_levels=4), ResNetGenerator(base_channels=1, num_blocks=1)]
)
def test_padding_to_a_multiple_is_in_the_table_and_moves_nothing(network: nn.Module, size: tuple[int, int]) -> None:
    rows = trace(network, size)
    expected, last = receptive_field(network), rows[-1].receptive_field
    assert rows[-1].output_size == size
    assert (last.size, last.jump, last.first_center) == (expected.size, 1, expected.first_center)
    padded = [row.kind for row in rows if row.name == ""]
    assert padded == ([] if size == (64, 64) else ["pad", "crop"])


def test_words_for_the_layers_of_a_table() -> None:
    network = nn.Sequential(
        nn.ZeroPad2d((0, 0, 1, 2)),
        nn.Conv2d(1, 1, 3, dilation=2),
        nn.ConvTranspose2d(1, 1, 3, 2, padding=1, output_padding=1),
        Crop(..., slice(1, -1), slice(None)),
    )
    assert [str(row) for row in trace(network)] == [
        "pad 1 and 2",
        "conv 3, dilation 2",
        "transposed conv 3, stride 2, pad 1 and 0",
        "crop 1",
    ]
    assert str(receptive_field(patchgan_layers(3))) == "70 pixels, jump 8, first center 11.5"


# ---- From the receptive field to the layers ----


@pytest.mark.parametrize(
    ("target", "num_layers", "size"),
    [
        (1, 0, 1),
        (16, 1, 16),
        (70, 3, 70),
        (286, 5, 286),
        (8, 0, 1),
        (9, 1, 16),
        (106, 3, 70),  # equally near to 70 and 142
        (107, 4, 142),
        (5000, 6, 574),
    ],
)
def test_layers_of_the_patchgan_nearest_to_a_target(target: int, num_layers: int, size: int) -> None:
    assert find_num_layers(target) == (num_layers, size)


def test_layers_of_a_plain_stack_nearest_to_a_target() -> None:
    assert find_num_layers(40, strided_layers) == (4, 46)
    assert find_num_layers(2, strided_layers, min_layers=1) == (1, 4)
    with pytest.raises(ValueError, match="target is 0"):
        find_num_layers(0)


def test_union_needs_one_grid() -> None:
    every, second = ReceptiveField(((0, 0),), 1), ReceptiveField(((0, 3),), 2)
    with pytest.raises(ValueError, match="1 and 2 pixels apart"):
        every.union(second)
    assert every.union(ReceptiveField(((0, 1), None), 2)).spans == ((0, 1), (1, 1))


def test_union_of_different_phases_takes_all_of_them() -> None:
    halves, thirds = ReceptiveField(((0, 0), (0, 1)), 2), ReceptiveField(((0, 0), (1, 1), (0, 2)), 3)
    both = halves.union(thirds)
    assert (both.period, both.jump) == (6, 1)
    for unit in range(-6, 12):
        (a, b), (c, d) = halves.span(unit) or (0, 0), thirds.span(unit) or (0, 0)
        assert both.span(unit) == (min(a, c), max(b, d))
