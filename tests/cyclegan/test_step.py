"""One step of CycleGAN against the paper's formulas, written out again."""

import copy
from dataclasses import replace

import pytest
import torch

from cyclegan.pool import ImagePool
from cyclegan.step import CycleGanStep, Networks, Weights
from ganvas.nn.cpu_kernels import optimize_for_cpu
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.training.optimizer import Adam
from ganvas.training.schedule import Progress

NAMES = ("G_ab", "G_ba", "D_a", "D_b")


class NoUpdate(Adam):
    """Leaves the weights, so that gradients can be compared."""

    def step(self, closure=None):
        pass


def networks(norm="instance", channels=(3, 3)):
    torch.manual_seed(0)
    a, b = channels
    options = {"base_channels": 4, "norm": norm}
    return Networks(
        ResNetGenerator(a, b, num_blocks=1, **options),
        ResNetGenerator(b, a, num_blocks=1, **options),
        PatchDiscriminator(a, num_layers=1, **options),
        PatchDiscriminator(b, num_layers=1, **options),
    )


def batch(n=2, channels=(3, 3)):
    rng = torch.Generator().manual_seed(1)
    return {d: torch.rand(n, c, 16, 16, generator=rng) * 2 - 1 for d, c in zip("ab", channels, strict=True)}


def make_step(nets, adam=NoUpdate, pool=0, **options):
    optimizers = {name: adam(getattr(nets, name).named_parameters(), 1e-3) for name in NAMES}
    shapes = [(getattr(nets, name).layers[0][0].in_channels, 16, 16) for name in ("D_a", "D_b")]
    return CycleGanStep(nets, optimizers, *(ImagePool(pool, shape) for shape in shapes), **options)


def gradients(nets):
    return {f"{name}.{key}": p.grad.clone() for name in NAMES for key, p in getattr(nets, name).named_parameters()}


def written_out(nets, data, lambda_identity):
    """Zhu et al. 2017, Eqs. 1 to 3 with least squares (Sec. 4), and the identity loss of Sec. 5.2."""
    a, b = data["a"], data["b"]
    fake_a, fake_b = nets.G_ba(b), nets.G_ab(a)
    losses = {
        "loss_g_ab": (nets.D_b(fake_b) - 1).square().mean(),
        "loss_g_ba": (nets.D_a(fake_a) - 1).square().mean(),
        "loss_cycle_a": (nets.G_ba(fake_b) - a).abs().mean(),
        "loss_cycle_b": (nets.G_ab(fake_a) - b).abs().mean(),
    }
    loss_g = losses["loss_g_ab"] + losses["loss_g_ba"] + 10 * (losses["loss_cycle_a"] + losses["loss_cycle_b"])
    if lambda_identity:
        losses |= {
            "loss_identity_a": (nets.G_ba(a) - a).abs().mean(),
            "loss_identity_b": (nets.G_ab(b) - b).abs().mean(),
        }
        loss_g = loss_g + 10 * lambda_identity * (losses["loss_identity_a"] + losses["loss_identity_b"])
    losses["loss_g"] = loss_g
    for domain, D, real, fake in (("a", nets.D_a, a, fake_a), ("b", nets.D_b, b, fake_b)):
        losses[f"loss_d_{domain}"] = 0.5 * ((D(real) - 1).square().mean() + D(fake.detach()).square().mean())
    return losses


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("n", "lambda_identity"), [(1, 0.5), (2, 0.5), (1, 0.0)])
def test_losses_and_gradients_equal_the_papers(n, lambda_identity, layout):
    nets = networks()
    twin, data = copy.deepcopy(nets), batch(n)
    for name in NAMES:  # as the training sets them up
        getattr(nets, name).to(memory_format=layout)
        optimize_for_cpu(getattr(nets, name))
    losses = make_step(nets, weights=Weights(lambda_identity=lambda_identity))(data)
    expected = written_out(twin, data, lambda_identity)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name

    G = [p for name in ("G_ab", "G_ba") for p in getattr(twin, name).parameters()]
    D = [p for name in ("D_a", "D_b") for p in getattr(twin, name).parameters()]
    grads = torch.autograd.grad(expected["loss_g"], G, retain_graph=True)
    grads += torch.autograd.grad(expected["loss_d_a"] + expected["loss_d_b"], D)
    for (name, got), wanted in zip(gradients(nets).items(), grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("what", ["join_generators", "join_discriminators"])
def test_joined_passes_change_nothing_with_instance_norm_and_something_with_batch_norm(what):
    for norm, same in (("instance", True), ("batch", False)):
        results = []
        for joined in (True, False):
            nets = networks(norm)
            options = {"join_generators": False, "join_discriminators": False, what: joined}
            results.append((make_step(nets, **options)(batch()), gradients(nets)))
        (first, first_grads), (second, second_grads) = results
        assert all(first[n].item() == pytest.approx(second[n].item(), rel=1e-4) for n in first) == same
        for name in first_grads if same else ():
            torch.testing.assert_close(first_grads[name], second_grads[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "options", [{"grad_accum_steps": 2}, {"grad_accum_steps": 4}, {"activation_checkpointing": True}]
)
def test_activation_checkpointing_and_accumulation_change_only_rounding(options):
    results = []
    for each in ({}, options):
        nets = networks()
        results.append((make_step(nets, **each)(batch(4)), gradients(nets)))
    (first, first_grads), (second, second_grads) = results
    for name, value in first.items():
        assert second[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for name, value in first_grads.items():
        torch.testing.assert_close(second_grads[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_checkpointing_averages_batch_norms_statistics_once():
    found = []
    for checkpointing in (False, True):
        nets = networks("batch")
        step = make_step(nets, join_generators=False, join_discriminators=False, activation_checkpointing=checkpointing)
        step(batch(4))
        step(batch(4))  # the first leaves all as it should be for the next
        found.append({f"{name}.{key}": value for name in NAMES for key, value in getattr(nets, name).named_buffers()})
    assert found[0]["G_ab.layers.2.num_batches_tracked"] == 2 * 3
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, msg=name)


def test_gradient_accumulation_uses_smaller_passes():
    nets, seen = networks(), []
    nets.G_ab.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    make_step(nets, grad_accum_steps=4, join_generators=False)(batch(4))
    assert set(seen) == {1}


@pytest.mark.parametrize(("lambda_identity", "passes"), [(0.5, 3), (0.0, 2)])
def test_the_identity_passes_are_left_out_where_they_have_no_weight(lambda_identity, passes):
    nets, seen = networks(), []
    for G in (nets.G_ab, nets.G_ba):
        G.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    make_step(nets, weights=Weights(lambda_identity=lambda_identity))(batch(2))
    assert sum(seen) == 2 * 2 * passes


def test_checkpointing_keeps_a_fraction_of_the_values():
    def kept(**options):
        """Add up what the step keeps from forward to backward, in values."""
        counts = []

        def pack(tensor):
            counts.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            make_step(networks(), **options)(batch(4))
        return sum(counts)

    assert kept(activation_checkpointing=True) < kept() / 3


def test_g_is_updated_before_d_with_the_same_fakes():
    """All losses are those of the networks before the step; an earlier update of the other side would show in them."""
    nets = networks()
    old, data = copy.deepcopy(nets), batch()
    losses = make_step(nets, Adam)(data)
    for name, value in written_out(old, data, 0.5).items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name

    d_first = written_out(Networks(old.G_ab, old.G_ba, nets.D_a, nets.D_b), data, 0.5)
    assert losses["loss_g_ab"].item() != pytest.approx(d_first["loss_g_ab"].item(), rel=1e-3)
    fakes_of_after = written_out(Networks(nets.G_ab, nets.G_ba, old.D_a, old.D_b), data, 0.5)
    assert losses["loss_d_b"].item() != pytest.approx(fakes_of_after["loss_d_b"].item(), rel=1e-3)


def test_each_d_has_its_own_pool():
    nets, data = networks(), batch(4)
    step = make_step(nets, pool=2)
    for pool, gray in ((step.pool_a, 0.3), (step.pool_b, -0.6)):
        pool(torch.full((2, 3, 16, 16), gray))
    pools = copy.deepcopy((step.pool_a, step.pool_b))
    torch.manual_seed(0)
    losses = step(data)
    torch.manual_seed(0)
    for domain, D, pool, fake in (
        ("a", nets.D_a, pools[0], nets.G_ba(data["b"])),
        ("b", nets.D_b, pools[1], nets.G_ab(data["a"])),
    ):
        shown = pool(fake.detach())
        changed = sum(not torch.allclose(x, y, atol=1e-4) for x, y in zip(shown, fake, strict=True))
        assert 0 < changed < 4  # earlier ones and new ones, or this would show nothing
        expected = 0.5 * ((D(data[domain]) - 1).square().mean() + D(shown).square().mean())
        assert losses[f"loss_d_{domain}"].item() == pytest.approx(expected.item(), rel=1e-4)
        torch.testing.assert_close(getattr(step, f"pool_{domain}").images, pool.images, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_gradient_accumulation_uses_the_pool_as_a_full_batch_does(accumulate):
    results = []
    for pieces in (1, accumulate):
        nets = networks()
        step = make_step(nets, pool=2, grad_accum_steps=pieces)
        for pool, gray in ((step.pool_a, 0.3), (step.pool_b, -0.6)):
            pool(torch.full((2, 3, 16, 16), gray))
        torch.manual_seed(0)
        losses = step(batch(4))
        results.append((losses, gradients(nets), step.pool_a.images, step.pool_b.images))
    (losses, grads, *pools), (again, grads_again, *pools_again) = results
    for name, value in losses.items():
        assert again[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for name, value in grads.items():
        torch.testing.assert_close(grads_again[name], value, rtol=1e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(pools_again, pools, rtol=1e-3, atol=1e-4)


def test_domains_may_differ_in_channels_without_the_identity_loss():
    nets = networks(channels=(1, 4))
    losses = make_step(nets, weights=Weights(lambda_identity=0))(batch(channels=(1, 4)))
    assert "loss_identity_a" not in losses
    assert all(torch.isfinite(value) for value in losses.values())


def test_an_identity_loss_of_domains_that_differ_in_channels_is_refused():
    with pytest.raises(ValueError, match=r"domain a has 1 channels and b 4; lambda_identity is 0.5"):
        make_step(networks(channels=(1, 4)))(batch(channels=(1, 4)))


# Of scores: D's loss on real images, D's on fakes, and G's.
FORMULAS = {
    "vanilla": (
        lambda s: -torch.sigmoid(s).log().mean(),
        lambda s: -(1 - torch.sigmoid(s)).log().mean(),
        lambda s: -torch.sigmoid(s).log().mean(),
    ),
    "hinge": (lambda s: (1 - s).clamp(min=0).mean(), lambda s: (1 + s).clamp(min=0).mean(), lambda s: -s.mean()),
    "wgangp": (lambda s: -s.mean(), lambda s: s.mean(), lambda s: -s.mean()),
}


@pytest.mark.parametrize("gan_loss", FORMULAS)
def test_other_losses_equal_their_formulas(gan_loss):
    nets, data = networks(), batch()
    losses = make_step(nets, gan_loss=gan_loss)(data)
    assert ("loss_gp_a" in losses) == (gan_loss == "wgangp")
    of_real, of_fake, of_g = FORMULAS[gan_loss]
    for direction, domain, D, fake in (
        ("ab", "b", nets.D_b, nets.G_ab(data["a"])),
        ("ba", "a", nets.D_a, nets.G_ba(data["b"])),
    ):
        real_scores, fake_scores = D(data[domain]), D(fake)
        assert losses[f"loss_g_{direction}"].item() == pytest.approx(of_g(fake_scores).item(), rel=1e-4)
        expected = 0.5 * (of_real(real_scores) + of_fake(fake_scores))
        assert losses[f"loss_d_{domain}"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_gradient_penalty_enters_ds_gradient_by_its_weight():
    found = []
    for lambda_gp in (0.0, 10.0, 20.0):
        nets = networks()
        torch.manual_seed(0)
        make_step(nets, gan_loss="wgangp", weights=Weights(lambda_gp=lambda_gp))(batch())
        found.append(torch.cat([p.grad.flatten() for p in nets.D_a.parameters()]))
    none, once, twice = found
    assert (once - none).abs().max() > 0.01
    torch.testing.assert_close(twice - none, 2 * (once - none), rtol=1e-3, atol=1e-4)


def test_penalty_is_relative_to_the_full_gan_loss(monkeypatch):
    """Gulrajani et al. 2017, Eq. 3: D's loss is halved with its penalty, or lambda would count twice."""
    monkeypatch.setattr(
        "ganvas.training.penalties.gradient_penalty", lambda D, real, fake: D(fake).mean() - D(real).mean()
    )
    found = []
    for lambda_gp in (0.0, 10.0):
        nets = networks()
        make_step(nets, gan_loss="wgangp", weights=Weights(lambda_gp=lambda_gp))(batch())
        found.append(torch.cat([p.grad.flatten() for p in nets.D_a.parameters()]))
    torch.testing.assert_close(found[1], 11 * found[0], rtol=1e-3, atol=1e-5)


def test_bf16_stays_near_fp32():
    results = []
    for kind in (torch.float32, torch.bfloat16):
        nets, seen = networks(), set()
        for name in NAMES:
            getattr(nets, name).register_forward_hook(lambda module, args, output, seen=seen: seen.add(output.dtype))
        results.append(make_step(nets, bf16=kind == torch.bfloat16)(batch()))
        assert seen == {kind}
        assert {value.dtype for value in results[-1].values()} == {torch.float32}
    first, second = results
    for name, value in first.items():
        assert second[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.01), name


def test_penalties_are_lazy_and_of_each_domain():
    weights = Weights(r1=0.4, penalty_every=4)
    found = []
    for gamma in (0.0, 0.4):
        nets = networks(norm="none")
        losses = make_step(nets, gan_loss="hinge", weights=replace(weights, r1=gamma))(batch(), Progress(8, 20))
        found.append(torch.cat([p.grad.flatten() for p in nets.D_a.parameters()]))
    x = batch()["a"].requires_grad_()
    scores = nets.D_a(x)
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    penalty = gradient.square().sum() / scores.numel()
    assert losses["loss_r1_a"].item() == pytest.approx(penalty.item(), rel=1e-4)
    # Halved with D's loss: gamma / 2, four steps' worth of it, and half of that.
    by_hand = torch.autograd.grad(0.5 * 4 * 0.4 / 2 * penalty, list(nets.D_a.parameters()), allow_unused=True)
    expected = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(nets.D_a.parameters(), by_hand, strict=True)
        ]
    )
    torch.testing.assert_close(found[1] - found[0], expected, rtol=1e-3, atol=1e-5)
    losses = make_step(networks(norm="none"), weights=weights)(batch(), Progress(9, 20))
    assert "loss_r1_a" not in losses


def test_diff_augment_changes_what_both_discriminators_see():
    results = []
    for policies in ((), ("color",)):
        torch.manual_seed(0)
        results.append(make_step(networks(), diff_augment=policies)(batch()))
    for name in ("loss_d_a", "loss_d_b", "loss_g_ab"):
        assert results[0][name].item() != pytest.approx(results[1][name].item(), rel=1e-4), name
    for name in ("loss_cycle_a", "loss_identity_b"):
        assert results[0][name].item() == pytest.approx(results[1][name].item(), rel=1e-5), name
