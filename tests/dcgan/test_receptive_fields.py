"""Fields of the presets by the step rule, counts of contributions by loops, and what the command says."""

import json

import pytest
import torch
from torch import nn

from dcgan.config import PRESETS
from dcgan.networks import build_networks
from dcgan.receptive_fields import times_read, times_written, uneven_layers
from ganvas.data.images import read_image

CONVOLUTIONAL = [preset for preset in PRESETS if preset not in ("mlp", "conditional")]


def table(dcgan, preset, *options):
    code, out, err = dcgan("receptive-field", "--preset", preset, "--json", *options)
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize(
    ("preset", "kernels"),
    [("dcgan", [4] * 3), ("dcgan-upsample", [4] * 3), ("dcgan-transpose", [3] * 3), ("dcgan-5x5", [5, 5])],
)
def test_fields_follow_the_step_rule(dcgan, preset, kernels):
    """r_in = k + (r_out - 1) * s, back from one output of each layer."""
    expected = []
    for depth in range(1, len(kernels) + 1):
        r = 1
        for kernel in reversed(kernels[:depth]):
            r = kernel + (r - 1) * 2
        expected.append(r)
    layers = [layer for layer in table(dcgan, preset)["discriminator"]["layers"] if "conv" in layer["layer"]]
    assert [layer["size"] for layer in layers] == expected
    assert [layer["jump"] for layer in layers] == [2**depth for depth in range(1, len(kernels) + 1)]
    last = {"dcgan": 3, "dcgan-5x5": 7}.get(preset, 4)
    assert layers[-1]["output_size"] == [last, last]


@pytest.mark.parametrize("preset", CONVOLUTIONAL)
def test_the_field_is_what_gradients_measure(dcgan, preset):
    _, D = build_networks(preset)
    convolutions = nn.Sequential(*(layer for layer in D.features if not isinstance(layer, nn.Flatten))).eval()
    for module in convolutions.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    x = torch.rand(1, 1, 28, 28, requires_grad=True)
    y = convolutions(x)
    middle = y.shape[-1] // 2
    y[0, :, middle, middle].sum().backward()
    rows = x.grad[0, 0].abs().sum(dim=1).nonzero()
    size = table(dcgan, preset)["discriminator"]["size"]
    assert rows.max() - rows.min() + 1 == min(size, 28 - int(rows.min()))


def reads(size, kernel, stride, before):
    """How often each of ``size`` pixels of a row is read, by every output that fits."""
    counts = [0] * size
    for output in range(-(-size // stride)):
        for tap in range(kernel):
            place = output * stride - before + tap
            if 0 <= place < size:
                counts[place] += 1
    return torch.tensor(counts, dtype=torch.float64)


def test_counts_of_one_layer_against_loops():
    """dcgan-5x5's last layer alone writes what a 5x5 stride-2 'same' convolution of 28 pixels reads."""
    G, _ = build_networks("dcgan-5x5")
    last = nn.Sequential(G.body[-2])
    row = reads(28, 5, 2, before=1)
    assert torch.equal(times_written(last, 28), torch.outer(row, row))
    assert set(row[2:-2].tolist()) == {2, 3}  # the checkerboard: 4, 6 or 9 times


def test_counts_of_two_layers_against_paths():
    _, D = build_networks("dcgan-5x5")
    first, second = reads(28, 5, 2, before=1), reads(14, 5, 2, before=1)
    paths = torch.zeros(28, dtype=torch.float64)
    for output in range(14):
        for tap in range(5):
            if 0 <= output * 2 - 1 + tap < 28:
                paths[output * 2 - 1 + tap] += second[output]
    assert torch.equal(times_read(D, 28), torch.outer(paths, paths))
    assert first.sum() < paths.sum()


@pytest.mark.parametrize("preset", CONVOLUTIONAL)
def test_4x4_stride_2_writes_evenly_and_others_do_not(preset):
    G, _ = build_networks(preset)
    inner = times_written(G, 28)[10:-10, 10:-10]
    even = preset in ("dcgan", "dcgan-upsample")
    assert (inner.min() == inner.max()) == even


def test_the_rule_names_the_layers_that_break_it():
    expected = {"dcgan": 0, "mlp": 0, "dcgan-upsample": 0, "dcgan-transpose": 2 + 3, "dcgan-5x5": 3 + 2}
    for preset, count in expected.items():
        assert len(uneven_layers(*build_networks(preset))) == count, preset
    layer = uneven_layers(*build_networks("dcgan-5x5"))[0]
    assert (layer.network, layer.kernel, layer.stride) == ("generator", 5, 2)


class TestCommand:
    def test_words_and_warnings(self, dcgan):
        code, out, _ = dcgan("receptive-field", "--preset", "dcgan-transpose")
        assert code == 0
        assert "sees 15 x 15 pixels" in out
        assert out.count("Warning:") == 5
        assert "kernel 3 / stride 2 is no whole number" in out
        assert "Warning" not in dcgan("receptive-field", "--preset", "dcgan")[1]

    def test_dense_layers_see_everything(self, dcgan):
        assert "every unit sees all 28 x 28 pixels" in dcgan("receptive-field", "--preset", "mlp")[1]
        assert table(dcgan, "conditional")["discriminator"] is None

    def test_the_drawing(self, dcgan, tmp_path):
        assert table(dcgan, "dcgan-5x5", "--out", tmp_path / "field.png")["drawing"] == str(tmp_path / "field.png")
        picture = read_image(tmp_path / "field.png")
        assert picture.shape[1] > 3 * 224
        assert len(set(picture[40:, 240:460, 0].ravel().tolist())) > 10  # many grays: uneven

    def test_larger_pictures(self, dcgan):
        assert table(dcgan, "dcgan", "--image-size", 64)["discriminator"]["size"] == 46

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--preset", "mlp", "--image-size", 32], "28 x 28 gray"),
            (["--preset", "dcgan", "--image-size", 30], "image_size is 30"),
            (["--preset", "dcgan", "--layers", 2], "--layers: a preset's layers are its own"),
            (["--preset", "mlp", "--out", "x.png"], "nothing to draw"),
        ],
    )
    def test_bad_input(self, dcgan, options, said):
        code, _, err = dcgan("receptive-field", *options)
        assert code == 2
        assert said in err
