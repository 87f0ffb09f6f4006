"""A benchmark compares like with like: the plain networks are ours, layer for layer, and both steps train them."""

import pytest
import torch

from benchmarks import cyclegan_step, dcgan_step, pix2pix_step
from benchmarks.step_tools import plain_patchgan
from benchmarks.train_step import Options, measure_loader
from dcgan.networks import build_networks
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator


def shapes(network):
    return sorted(tuple(p.shape) for p in network.parameters())


def test_plain_networks_have_our_parameters():
    for plain, ours in zip(dcgan_step.plain_networks(28), build_networks("dcgan"), strict=True):
        assert shapes(plain) == shapes(ours)
    with torch.device("meta"):
        assert shapes(pix2pix_step.plain_unet()) == shapes(UNetGenerator())
        assert shapes(plain_patchgan(6, torch.nn.BatchNorm2d, bias=False)) == shapes(PatchDiscriminator())
        assert shapes(cyclegan_step.plain_generator(256)) == shapes(ResNetGenerator())
        assert shapes(cyclegan_step.plain_generator(128)) == shapes(ResNetGenerator(num_blocks=6))
        assert shapes(plain_patchgan(3, torch.nn.InstanceNorm2d, bias=True)) == shapes(
            PatchDiscriminator(3, norm="instance")
        )


def test_both_steps_of_a_digit_gan_run():
    batch = dcgan_step.make_batch(4, 28, "cpu")
    loss_d, loss_g = dcgan_step.plain_step("cpu", 28)(batch)
    assert torch.isfinite(loss_d)
    assert torch.isfinite(loss_g)
    assert {"loss_d", "loss_g_gan"} <= dcgan_step.our_step("cpu", 28)(batch).keys()


def test_flops_against_the_layers_counted_by_hand():
    """Two operations a multiply-add; 3 G, 2 x 3 D trained, 2 D passed through."""
    G = 2 * (100 * 2304 + 3 * 3 * 256 * 128 * 16 + 7 * 7 * 128 * 64 * 16 + 14 * 14 * 64 * 16)
    D = 2 * (14 * 14 * 64 * 16 + 7 * 7 * 64 * 128 * 16 + 3 * 3 * 128 * 256 * 16 + 2304)
    assert dcgan_step.flops_per_image(28) == pytest.approx(3 * G + 8 * D, rel=1e-3)


def test_the_work_of_a_cyclegan_step_is_that_of_the_reference():
    """About 1.86 TFLOP at 256 pixels with the identity loss: 99.1 GFLOP a generator's pass."""
    assert cyclegan_step.flops_per_image(256) == pytest.approx(1.86e12, rel=0.02)


@pytest.mark.slow
def test_both_steps_of_cyclegan_run():
    batch = cyclegan_step.make_batch(1, 32, "cpu")
    assert torch.isfinite(cyclegan_step.plain_step("cpu", 32)(batch))
    assert "loss_cycle_a" in cyclegan_step.our_step("cpu", 32)(batch)


def test_the_work_of_cut_by_its_layers():
    """At 256 pixels: convolutions of G, of its encoder up to the fifth block, and of D; two operations each."""
    stem, halves, block = 49 * 3 * 64 * 256**2, 9 * (64 * 128 * 256**2 + 128 * 256 * 128**2), 2 * 9 * 256**2 * 64**2
    doubles, last = 9 * (256 * 128 * 128**2 + 128 * 64 * 256**2), 49 * 64 * 3 * 256**2
    G, encoder = 2 * (stem + halves + 9 * block + doubles + last), 2 * (stem + halves + 5 * block)
    sides = [255, 127, 63, 31, 30]  # of the outputs of 4x4 convolutions; each of the first three is halved, rounded up
    channels = [3, 64, 128, 256, 512, 1]
    D = 2 * sum(16 * channels[i] * channels[i + 1] * side**2 for i, side in enumerate(sides))
    assert cyclegan_step.contrastive_flops_per_image("cut", 256) == pytest.approx(6 * (G + encoder) + 8 * D, rel=1e-3)
    expected = 3 * (G + encoder) + encoder / 2 + 8 * D
    assert cyclegan_step.contrastive_flops_per_image("fastcut", 256) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["cut", "fastcut"])
def test_the_step_of_cut_runs(objective):
    losses = cyclegan_step.contrastive_step(objective, "cpu", 64)(cyclegan_step.make_batch(1, 64, "cpu"))
    assert torch.isfinite(losses["loss_nce"])
    assert ("loss_nce_identity" in losses) == (objective == "cut")


def test_the_loader_returns_batches_of_the_requested_size():
    batches = list(dcgan_step.loaded_batches(16, 28, steps=3))
    assert [batch["image"].shape for batch in batches] == [(16, 1, 28, 28)] * 3


@pytest.mark.slow
def test_the_loader_is_measured_with_the_step():
    found = measure_loader(Options(model="dcgan", warmup=0, pairs=2), 8, "cpu")
    assert found.keys() == {"fixed_steps_per_second", "loaded_steps_per_second"}
    assert all(value > 0 for value in found.values())
