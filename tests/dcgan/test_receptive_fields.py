"""Fields of the presets by the step rule, counts of contributions by loops, and what the command says."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from dcgan.config import PRESETS
from dcgan.networks import build_networks
from dcgan.receptive_fields import times_read, times_written, uneven_layers
from ganvas.data.decode import read_image
from ganvas.nn.receptive_field import measured_receptive_field, trace

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


@pytest.mark.parametrize("size", [61, 64])  # odd sizes pad otherwise
@pytest.mark.parametrize("preset", CONVOLUTIONAL)
def test_the_field_is_what_gradients_measure(preset, size):
    _, D = build_networks(preset)
    convolutions = nn.Sequential(*(layer for layer in D.features if not isinstance(layer, nn.Flatten)))
    assert trace(convolutions, (size, size))[-1].receptive_field == measured_receptive_field(convolutions, size)


# One side of the image is enough: kernels are square and all weights 1, so that counts of both sides multiply.


def taps(outputs, kernel, stride, size, before=None):
    """Return output and pixel for every weight of a convolution that meets a pixel; 'same' padding by default."""
    if before is None:
        before = max((outputs - 1) * stride + kernel - size, 0) // 2
    places = ((output, output * stride - before + tap) for output in range(outputs) for tap in range(kernel))
    return [(output, place) for output, place in places if 0 <= place < size]


def spread(counts, kernel, stride, size, before=None):
    """Add each output to all pixels that it meets: what a transposed convolution of ones does."""
    pixels = [0] * size
    for output, place in taps(len(counts), kernel, stride, size, before):
        pixels[place] += counts[output]
    return pixels


def gathered(counts, kernel):
    """Sum the pixels that each output of a stride-1 'same' convolution meets."""
    outputs = [0] * len(counts)
    for output, place in taps(len(counts), kernel, 1, len(counts)):
        outputs[output] += counts[place]
    return outputs


def doubled(counts):
    return [count for count in counts for _ in range(2)]


READ = {  # from the last convolution's outputs back to the image
    "dcgan": [(4, 2, 7, 1), (4, 2, 14, 1), (4, 2, 28, 1)],
    "dcgan-upsample": [(4, 2, 7), (4, 2, 14), (4, 2, 28)],
    "dcgan-transpose": [(3, 2, 7), (3, 2, 14), (3, 2, 28)],
    "dcgan-5x5": [(5, 2, 14), (5, 2, 28)],
}
OUTPUTS = {"dcgan": 3, "dcgan-upsample": 4, "dcgan-transpose": 4, "dcgan-5x5": 7}
WRITTEN = {  # from the middle of the generator to the image
    "dcgan": (3, [(4, 2, 7, 1), (4, 2, 14, 1), (4, 2, 28, 1)]),
    "dcgan-transpose": (7, [(3, 2, 14), (3, 1, 14), (3, 2, 28)]),
    "dcgan-5x5": (4, [(5, 2, 7), (5, 2, 14), (5, 2, 28)]),
}


def square(counts):
    counts = torch.tensor(counts, dtype=torch.float64)
    return torch.outer(counts, counts)


@pytest.mark.parametrize("preset", CONVOLUTIONAL)
def test_reads_against_loops(preset):
    counts = [1] * OUTPUTS[preset]
    for layer in READ[preset]:
        counts = spread(counts, *layer)
    assert torch.equal(times_read(build_networks(preset)[1], 28), square(counts))


@pytest.mark.parametrize("preset", WRITTEN)
def test_writes_against_loops(preset):
    start, layers = WRITTEN[preset]
    counts = [1] * start
    for layer in layers:
        counts = spread(counts, *layer)
    assert torch.equal(times_written(build_networks(preset)[0], 28), square(counts))


def test_writes_after_upsampling_against_loops():
    counts = gathered(gathered(doubled(gathered(doubled([1] * 7), 4)), 4), 4)
    assert torch.equal(times_written(build_networks("dcgan-upsample")[0], 28), square(counts))


def test_one_5x5_layer_of_stride_2_is_a_checkerboard():
    """2 or 3 times a side: 4, 6 or 9 times."""
    last = nn.Sequential(build_networks("dcgan-5x5")[0].body[-2])
    assert set(times_written(last, 28)[2:-2, 2:-2].unique().tolist()) == {4, 6, 9}


@pytest.mark.parametrize("preset", CONVOLUTIONAL)
def test_4x4_stride_2_writes_evenly_and_others_do_not(preset):
    G, _ = build_networks(preset)
    inner = times_written(G, 28)[8:16, 8:16]  # the last of 7 rows of "dcgan" is written less, and shows up to here
    even = preset in ("dcgan", "dcgan-upsample")
    assert (inner.min() == inner.max()) == even


def test_the_rule_names_the_layers_that_break_it():
    expected = {"dcgan": 0, "mlp": 0, "dcgan-upsample": 0, "dcgan-transpose": 2 + 3, "dcgan-5x5": 3 + 2}
    for preset, count in expected.items():
        assert len(uneven_layers(*build_networks(preset))) == count, preset
    layer = uneven_layers(*build_networks("dcgan-5x5"))[0]
    assert (layer.network, layer.kernel, layer.stride) == ("generator", 5, 2)


class TestCommand:
    def test_table_and_warnings(self, dcgan):
        code, out, _ = dcgan("receptive-field", "--preset", "dcgan-transpose")
        assert code == 0
        assert "sees 15 x 15 pixels" in out
        assert out.count("Warning:") == 5
        assert "kernel 3 / stride 2 is not an integer" in out
        assert "Warning" not in dcgan("receptive-field", "--preset", "dcgan")[1]

    @pytest.mark.slow
    def test_a_process_of_its_own(self):
        command = [sys.executable, "-m", "dcgan", "receptive-field", "--preset", "dcgan-5x5", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        assert answer["discriminator"]["size"] == 13
        assert [(layer["kernel"], layer["stride"]) for layer in answer["uneven"]] == [(5, 2)] * 5

    @pytest.mark.parametrize("target", [1, 2])
    def test_the_smallest_stack_has_a_layer(self, dcgan, target):
        code, out, _ = dcgan("receptive-field", "--target", target)
        assert code == 0
        assert out.startswith(f"--layers 1 sees 4 x 4 pixels, the nearest to {target}")

    def test_dense_layers_see_everything(self, dcgan):
        assert "every unit sees all 28 x 28 pixels" in dcgan("receptive-field", "--preset", "mlp")[1]
        assert table(dcgan, "conditional")["discriminator"] is None

    def test_the_drawing(self, dcgan, tmp_path):
        assert table(dcgan, "dcgan-5x5", "--out", tmp_path / "field.png")["drawing"] == str(tmp_path / "field.png")
        image = read_image(tmp_path / "field.png")
        assert image.shape[1] > 3 * 224
        assert len(set(image[40:, 240:460, 0].ravel().tolist())) > 10  # many grays: uneven

    def test_larger_images(self, dcgan):
        assert table(dcgan, "dcgan", "--image-size", 64)["discriminator"]["size"] == 46

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--preset", "mlp", "--image-size", 32], "28 x 28 gray"),
            (["--preset", "dcgan", "--image-size", 30], "image_size is 30"),
            (["--image-size", 64], "--image-size: is for a preset's images"),
            (["--layers", 0], "--layers is 0; allowed are 1 to 6\n"),
            (["--preset", "dcgan", "--layers", 2], "--layers: a preset's layers are its own"),
            (["--preset", "mlp", "--out", "x.png"], "nothing to draw"),
        ],
    )
    def test_bad_input(self, dcgan, options, message):
        code, _, err = dcgan("receptive-field", *options)
        assert code == 2
        assert message in err
