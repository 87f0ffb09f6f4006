"""The presets against the totals that their tutorials printed and layers counted by hand."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dcgan.config import PRESETS
from dcgan.networks import build_networks, init_weights, keras_total, stage_sizes


def classes(preset):
    return 10 if preset == "conditional" else 0


@pytest.mark.parametrize(
    ("preset", "generator", "discriminator"),
    [
        ("mlp", 562_704, 1_460_225),
        ("conditional", 562_704 + 10 * 100, 1_460_225 + 10 * 784),
        ("dcgan-upsample", 1_028_673, 690_273),
        ("dcgan-transpose", 1_637_121, 95_489),
        ("dcgan-5x5", 167_873, 55_233),
    ],
)
def test_totals_are_those_that_keras_printed(preset, generator, discriminator):
    G, D = build_networks(preset, num_classes=classes(preset))
    assert (keras_total(G), keras_total(D)) == (generator, discriminator)


@pytest.mark.parametrize(
    ("preset", "trainable"), [("mlp", (561_168, 1_460_225)), ("dcgan-upsample", (1_028_289, 689_825))]
)
def test_trainable_totals(preset, trainable):
    networks = build_networks(preset)
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == trainable


def test_the_guide_gives_these_totals():
    guide = (Path(__file__).parents[2] / "docs" / "dcgan.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([\d,]+) \| ([\d,]+) \|$", guide, re.MULTILINE)
    assert {name for name, *_ in rows} == set(PRESETS)
    for name, *totals in rows:
        found = [keras_total(network) for network in build_networks(name, num_classes=classes(name))]
        assert [int(total.replace(",", "")) for total in totals] == found, name


def layers(network):
    """Write a network's layers down in their order; what has nothing to learn or choose is left out."""
    names = []
    for layer in network.modules():
        match layer:
            case nn.Linear():
                names.append(f"dense {layer.out_features}")
            case nn.ConvTranspose2d() | nn.Conv2d():
                kind = "transposed" if layer.transposed else "conv"
                names.append(f"{kind} {layer.out_channels} {layer.kernel_size[0]}x{layer.kernel_size[1]}")
                names += [f"stride {layer.stride[0]}"] if layer.stride != (1, 1) else []
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                names.append("norm")
            case nn.Upsample():
                names.append(f"upsample {layer.scale_factor:g} {layer.mode}")
            case nn.LeakyReLU():
                names.append(f"leaky {layer.negative_slope:g}")
            case nn.Dropout():
                names.append(f"dropout {layer.p:g}")
            case nn.ReLU() | nn.Tanh():
                names.append(type(layer).__name__.lower())
            case nn.Embedding() | nn.Flatten() | nn.Unflatten() | nn.Identity() | nn.Sequential():
                pass
            case _:
                assert layer is network, f"{layer} is not written down"
    return ", ".join(names)


MLP = (
    "dense 256, leaky 0.2, norm, dense 512, leaky 0.2, norm, dense 784, tanh",
    "dense 1024, leaky 0.2, dropout 0.4, dense 512, leaky 0.2, dropout 0.4, dense 256, leaky 0.2, dropout 0.4, dense 1",
)


@pytest.mark.parametrize(
    ("preset", "generator", "discriminator"),
    [
        ("mlp", *MLP),  # activations and dropout as Keras-GAN has them: the document's code is lost
        ("conditional", *MLP),
        (
            "dcgan-upsample",
            "dense 6272, relu, upsample 2 nearest, conv 128 4x4, relu, norm, upsample 2 nearest, conv 64 4x4, relu, "
            "norm, conv 1 4x4, tanh",
            "conv 32 4x4, stride 2, relu, norm, conv 64 4x4, stride 2, relu, norm, conv 128 4x4, stride 2, relu, norm, "
            "dense 256, relu, dropout 0.25, dense 1",
        ),
        (
            "dcgan-transpose",
            "dense 12544, transposed 128 3x3, stride 2, norm, leaky 0.01, transposed 64 3x3, norm, leaky 0.01, "
            "transposed 1 3x3, stride 2, tanh",
            "conv 32 3x3, stride 2, leaky 0.01, conv 64 3x3, stride 2, norm, leaky 0.01, conv 128 3x3, stride 2, norm, "
            "leaky 0.01, dense 1",
        ),
        (
            "dcgan-5x5",
            "dense 1024, relu, transposed 32 5x5, stride 2, relu, transposed 16 5x5, stride 2, relu, transposed 1 5x5, "
            "stride 2, tanh",
            "conv 32 5x5, stride 2, relu, conv 64 5x5, stride 2, relu, dense 1",
        ),
        (
            "dcgan",
            "dense 2304, norm, relu, transposed 128 4x4, stride 2, norm, relu, transposed 64 4x4, stride 2, norm, "
            "relu, transposed 1 4x4, stride 2, tanh",
            "conv 64 4x4, stride 2, leaky 0.2, conv 128 4x4, stride 2, norm, leaky 0.2, conv 256 4x4, stride 2, norm, "
            "leaky 0.2, dense 1",
        ),
    ],
)
def test_layers_in_their_order(preset, generator, discriminator):
    G, D = build_networks(preset, num_classes=classes(preset))
    assert (layers(G), layers(D)) == (generator, discriminator)


def test_our_totals_from_the_formula():
    """28 pixels: 3x3x256 → 7x7x128 → 14x14x64 → 28x28x1; batch norm has a scale and a shift, and no bias beside it."""
    G, D = build_networks()
    up = 100 * 3 * 3 * 256 + 2 * 256 + 256 * 128 * 16 + 2 * 128 + 128 * 64 * 16 + 2 * 64 + 64 * 16 + 1
    down = 64 * 16 + 64 + 64 * 128 * 16 + 2 * 128 + 128 * 256 * 16 + 2 * 256 + 3 * 3 * 256 + 1
    assert [sum(p.numel() for p in network.parameters()) for network in (G, D)] == [up, down]


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_and_range(preset):
    K = classes(preset)
    G, D = build_networks(preset, num_classes=K)
    labels = torch.arange(4) if K else None
    images = G(torch.randn(4, 100), labels)
    assert images.shape == (4, 1, 28, 28)
    assert images.abs().max() <= 1
    assert D(images, labels).shape == (4,)


@pytest.mark.parametrize("preset", ["dcgan", "dcgan-upsample", "dcgan-transpose", "dcgan-5x5"])
def test_discriminators_have_the_tutorials_feature_maps(preset):
    """28 → 14 → 7, and 4 where a third layer follows; ours pads by 1 and gives 3."""
    _, D = build_networks(preset)
    sizes, x = [], torch.zeros(1, 1, 28, 28)
    for layer in D.features:
        x = layer(x)
        if x.dim() == 4 and (not sizes or sizes[-1] != x.shape[-1]):
            sizes.append(x.shape[-1])
    assert sizes == {"dcgan": [14, 7, 3], "dcgan-5x5": [14, 7]}.get(preset, [14, 7, 4])


@pytest.mark.parametrize("size", [16, 28, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_ours_draws_every_size_and_channel_count(size, channels):
    G, D = build_networks(image_size=size, channels=channels, base_channels=4, num_classes=3)
    images = G(torch.randn(2, 100), torch.tensor([0, 2]))
    assert images.shape == (2, channels, size, size)
    assert D(images, torch.tensor([0, 2])).shape == (2,)


def test_stages():
    assert stage_sizes(28) == [28, 14, 7, 3]
    assert stage_sizes(128) == [128, 64, 32, 16, 8, 4]


@pytest.mark.parametrize("size", [8, 27, 30, 48, 256])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"image_size is {size}; allowed are 28, 16"):
        build_networks(image_size=size)


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("mlp", {"image_size": 32}, "28 x 28 gray"),
        ("dcgan-5x5", {"channels": 3}, "28 x 28 gray"),
        ("conditional", {}, "needs classes"),
        ("dcgan-upsample", {"num_classes": 10}, "takes no classes"),
        ("mlp", {"base_channels": 32}, "has filters of its own, got base_channels 32"),
        ("dcgan", {"extra_layers": 1}, "only dcgan-5x5 takes extra_layers, got 1"),
    ],
)
def test_options_that_a_tutorial_does_not_have_are_refused(preset, options, message):
    with pytest.raises(ValueError, match=message):
        build_networks(preset, **options)


def test_labels_are_required_where_there_are_classes():
    G, D = build_networks(num_classes=3, base_channels=4)
    with pytest.raises(ValueError, match="3 classes and needs labels"):
        G(torch.zeros(1, 100))
    with pytest.raises(ValueError, match="3 classes and needs labels"):
        D(torch.zeros(1, 1, 28, 28))


def test_label_of_a_product_scales_z_and_the_image():
    G, D = build_networks("conditional", num_classes=10)
    G, D = G.eval(), D.eval()
    plain_g, plain_d = build_networks("mlp")
    plain_g.load_state_dict(G.state_dict(), strict=False)
    plain_d.load_state_dict(D.state_dict(), strict=False)
    plain_g, plain_d = plain_g.eval(), plain_d.eval()
    z, x, label = torch.randn(2, 100), torch.randn(2, 1, 28, 28), torch.tensor([3, 7])
    torch.testing.assert_close(G(z, label), plain_g(z * G.embedding.weight[label]))
    torch.testing.assert_close(D(x, label), plain_d(x * D.embedding.weight[label].view(2, 1, 28, 28)))


def test_a_projections_label_adds_its_product_with_the_features():
    _, D = build_networks(num_classes=4, base_channels=4)
    nn.init.normal_(D.embedding.weight)
    D.eval()
    x, label = torch.randn(3, 1, 28, 28), torch.tensor([0, 3, 1])
    features = D.features(x)
    expected = D.head(features)[:, 0] + torch.stack([f @ D.embedding.weight[k] for f, k in zip(features, label)])  # noqa: B905
    torch.testing.assert_close(D(x, label), expected)


def test_extra_layers_and_channels_of_the_exercise():
    G, _ = build_networks("dcgan-5x5", extra_layers=2, base_channels=32)
    first = 100 * 512 + 512
    extra = 2 * (32 * 32 * 25 + 32)
    rest = 32 * 16 * 25 + 16 + 16 * 8 * 25 + 8 + 8 * 25 + 1
    assert sum(p.numel() for p in G.parameters()) == first + extra + rest
    assert G(torch.randn(2, 100)).shape == (2, 1, 28, 28)


@pytest.mark.parametrize(("preset", "norm"), [("dcgan-5x5", "batch"), ("mlp", "none"), ("dcgan-transpose", "none")])
def test_norms_can_be_added_and_removed(preset, norm):
    for network in build_networks(preset, norm=norm):
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        assert bool(norms) == (norm == "batch")


@pytest.mark.parametrize(
    ("preset", "count", "momentum"),
    # Keras's default of 0.99 where the code is there, Keras-GAN's 0.8 where it is lost; torch counts the other way.
    [("dcgan-upsample", 5, 0.01), ("dcgan-transpose", 4, 0.01), ("mlp", 2, 0.2), ("conditional", 2, 0.2)],
)
def test_batch_norm_of_the_tutorials_is_kerass(preset, count, momentum):
    networks = build_networks(preset, num_classes=classes(preset))
    norms = [m for net in networks for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == count
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, momentum)}


class TestStart:
    def weights(self, preset, start):
        G, D = build_networks(preset, num_classes=classes(preset))
        for network in (G, D):
            init_weights(network, start, torch.Generator().manual_seed(0))
        return G, D

    def test_glorot_is_uniform_in_its_bound(self):
        _, D = self.weights("mlp", "glorot")
        layer = D.head[0][0]
        bound = math.sqrt(6 / (784 + 1024))
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
        assert not layer.bias.any()

    def test_truncated_normal_ends_at_two_deviations(self):
        G, D = self.weights("dcgan-5x5", "truncated-normal")
        weight = G.body[0].weight
        assert 0.19 < weight.abs().max() <= 0.2
        assert weight.std().item() == pytest.approx(0.1 * 0.8796, rel=0.01)  # of a normal cut at two deviations
        assert all((m.bias == 0.1).all() for m in D.modules() if isinstance(m, nn.Conv2d | nn.Linear))

    def test_normal_is_radfords(self):
        G, _ = self.weights("dcgan", "normal")
        assert G.body[0].weight.std().item() == pytest.approx(0.02, rel=0.01)

    def test_embeddings(self):
        G, _ = self.weights("conditional", "glorot")
        assert 0.045 < G.embedding.weight.abs().max() <= 0.05
        _, D = build_networks(num_classes=3)
        init_weights(D, "normal", torch.Generator())
        assert not D.embedding.weight.any()

    def test_product_of_labels_is_not_zero_initially(self):
        for network in self.weights("conditional", "normal"):
            assert 0.045 < network.embedding.weight.abs().max() <= 0.05

    def test_rng_determines_the_weights(self):
        first, again = (self.weights("dcgan-5x5", "truncated-normal")[0].state_dict() for _ in range(2))
        assert all(torch.equal(first[name], again[name]) for name in first)
