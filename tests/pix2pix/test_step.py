"""One step of pix2pix against the paper's formulas, written out again."""

import copy

import pytest
import torch

from ganvas.nn.patchgan import PatchDiscriminator, make_discriminator
from ganvas.nn.unet import UNetGenerator
from ganvas.training.optimizer import Adam
from ganvas.training.schedule import Progress
from pix2pix.step import Pix2PixStep, Weights


class NoUpdate(Adam):
    """Leaves the weights, so that gradients can be compared."""

    def step(self, closure=None):
        pass


def networks(norm="instance"):
    torch.manual_seed(0)
    G = UNetGenerator(base_channels=4, num_levels=3, dropout=0.0)
    return G, PatchDiscriminator(base_channels=4, num_layers=1, norm=norm)


def batch(n=2):
    rng = torch.Generator().manual_seed(1)
    return {name: torch.rand(n, 3, 32, 32, generator=rng) * 2 - 1 for name in ("source", "target")}


def make_step(G, D, adam=NoUpdate, **options):
    return Pix2PixStep(G, D, adam(G.named_parameters(), 1e-3), adam(D.named_parameters(), 1e-3), **options)


def test_gradients_equal_the_papers_losses():
    G, D = networks()
    G2, D2 = copy.deepcopy(G), copy.deepcopy(D)
    data = batch()
    losses = make_step(G, D)(data)

    x, y = data["source"], data["target"]
    fake = G2(x)
    real_scores, fake_scores = D2(torch.cat([x, y], 1)), D2(torch.cat([x, fake.detach()], 1))
    loss_d = -0.5 * (torch.log(torch.sigmoid(real_scores)).mean() + torch.log(1 - torch.sigmoid(fake_scores)).mean())
    for p, g in zip(D.parameters(), torch.autograd.grad(loss_d, list(D2.parameters())), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-6)  # halved: Adam would hide a missing half

    gan, l1 = -torch.log(torch.sigmoid(D2(torch.cat([x, fake], 1)))).mean(), (fake - y).abs().mean()
    for p, g in zip(G.parameters(), torch.autograd.grad(gan + 100 * l1, list(G2.parameters())), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-5)
    expected = {"loss_d": loss_d, "loss_g_gan": gan, "loss_g_l1": l1, "loss_g": gan + 100 * l1}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_d_is_updated_before_g_and_only_once():
    G, D = networks()
    step = make_step(G, D, Adam)
    before = [p.detach().clone() for p in D.parameters()]
    seen = []
    original = step._update_g
    step._update_g = lambda *a: (seen.extend(p.detach().clone() for p in D.parameters()), original(*a))[1]
    step(batch())
    assert any(not torch.equal(a, b) for a, b in zip(before, seen, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen, D.parameters(), strict=True))


def test_l1_alone_does_not_update_d():
    G, D = networks()
    before = copy.deepcopy(D.state_dict())
    losses = make_step(G, D, Adam, weights=Weights(lambda_gan=0))(batch())
    assert losses.keys() == {"loss_g_l1", "loss_g"}
    assert all(torch.equal(value, before[name]) for name, value in D.state_dict().items())
    assert losses["loss_g"].item() == pytest.approx(100 * losses["loss_g_l1"].item())


def test_gradient_penalty_enters_ds_gradient():
    gradients = {}
    for lambda_gp in (0.0, 10.0):
        G, D = networks()
        torch.manual_seed(3)
        losses = make_step(G, D, gan_loss="wgangp", weights=Weights(lambda_gp=lambda_gp))(batch())
        gradients[lambda_gp] = torch.cat([p.grad.flatten() for p in D.parameters() if p.grad is not None])
        assert losses["loss_gp"].item() > 0
    assert (gradients[0.0] - gradients[10.0]).abs().max() > 1e-2


def test_penalty_is_relative_to_the_full_gan_loss(monkeypatch):
    """Gulrajani et al. 2017, Eq. 3: D's loss is halved with its penalty, or lambda would count twice."""
    monkeypatch.setattr(
        "ganvas.training.penalties.gradient_penalty", lambda D, real, fake: D(fake).mean() - D(real).mean()
    )
    gradients = {}
    for lambda_gp in (0.0, 10.0):
        G, D = networks()
        make_step(G, D, gan_loss="wgangp", weights=Weights(lambda_gp=lambda_gp))(batch())
        gradients[lambda_gp] = torch.cat([p.grad.flatten() for p in D.parameters()])
    torch.testing.assert_close(gradients[10.0], 11 * gradients[0.0], rtol=1e-3, atol=1e-5)


def test_training_lowers_the_l1_loss():
    G, D = networks()
    step, data = make_step(G, D, Adam), batch(1)
    first = step(data)["loss_g_l1"].item()
    for _ in range(100):
        last = step(data)["loss_g_l1"].item()
    assert last < 0.8 * first


def test_bf16_stays_near_fp32_and_leaves_float32_weights():
    results = []
    for bf16 in (False, True):
        G, D = networks("batch")
        losses = make_step(G, D, Adam, bf16=bf16)(batch())
        assert all(value.dtype == torch.float32 for value in losses.values())
        assert all(p.dtype == torch.float32 for p in G.parameters())
        results.append({name: value.item() for name, value in losses.items()})
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=0.03), name
    assert results[0] != results[1]


# ---- Parts of later papers ----


def gradients(network):
    return [p.grad for p in network.parameters()]


def assert_equal_gradients(found, loss, network):
    expected = torch.autograd.grad(loss, list(network.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_relativistic_pairs_with_both_penalties():
    """D: softplus(D(fake) - D(real)) + gamma/2 (R1 + R2), halved; G: softplus(D(real) - D(fake)) with the new D."""
    G, D = networks("none")
    G2, D2 = copy.deepcopy(G), copy.deepcopy(D)
    data, weights = batch(), Weights(lambda_l1=7.0, r1=0.3, r2=0.5, penalty_every=4)
    losses = make_step(G, D, gan_loss="relativistic", weights=weights)(data, Progress(8, 100))

    x, y = data["source"], data["target"]
    fake = G2(x)
    real_pair, fake_pair = torch.cat([x, y], 1), torch.cat([x, fake.detach()], 1)
    softplus = torch.nn.functional.softplus
    penalties = []
    for pair in (real_pair, fake_pair):
        leaf = pair.clone().requires_grad_()
        logits = D2(leaf)
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
        penalties.append(gradient.square().sum() / logits.numel())
    loss_d = softplus(D2(fake_pair) - D2(real_pair)).mean()
    total = 0.5 * (loss_d + 4 * (0.3 / 2 * penalties[0] + 0.5 / 2 * penalties[1]))
    assert_equal_gradients(gradients(D), total, D2)
    gan = softplus(D2(real_pair).detach() - D2(torch.cat([x, fake], 1))).mean()
    assert_equal_gradients(gradients(G), gan + 7 * (fake - y).abs().mean(), G2)
    expected = {"loss_d": 0.5 * loss_d, "loss_r1": penalties[0], "loss_r2": penalties[1], "loss_g_gan": gan}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-3), name


def test_penalties_are_lazy():
    G, D = networks("none")
    step = make_step(G, D, weights=Weights(r1=1.0, penalty_every=3))
    with_penalty = [number for number in range(7) if "loss_r1" in step(batch(), Progress(number, 7))]
    assert with_penalty == [0, 3, 6]


def test_each_scale_has_an_equal_share_of_a_penalty():
    torch.manual_seed(0)
    G = UNetGenerator(base_channels=4, num_levels=3, dropout=0.0)
    D = make_discriminator(6, base_channels=4, num_layers=1, norm="none", num_scales=2, return_features=True)
    D2, data = copy.deepcopy(D), batch()
    losses = make_step(G, D, gan_loss="hinge", weights=Weights(r1=1.0, penalty_every=1))(data)

    pair = torch.cat([data["source"], data["target"]], 1).requires_grad_()
    fine, coarse = (scale[-1] for scale in D2(pair))
    assert fine.numel() > 2 * coarse.numel()
    scores = fine.numel() + coarse.numel()
    mean = (fine.mean() + coarse.mean()) / 2  # what D's loss sees
    (gradient,) = torch.autograd.grad(mean * scores, pair)
    assert losses["loss_r1"].item() == pytest.approx((gradient.square().sum() / scores).item(), rel=1e-4)


def test_feature_matching_and_scales():
    torch.manual_seed(0)
    G = UNetGenerator(base_channels=4, num_levels=3, dropout=0.0)
    D = make_discriminator(6, base_channels=4, num_layers=1, norm="none", num_scales=2, return_features=True)
    G2, D2 = copy.deepcopy(G), copy.deepcopy(D)
    data, weights = batch(), Weights(lambda_l1=0.0, lambda_features=3.0)
    losses = make_step(G, D, gan_loss="hinge", weights=weights)(data)

    x, y = data["source"], data["target"]
    fake = G2(x)
    real, judged, detached = (D2(torch.cat([x, each], 1)) for each in (y, fake, fake.detach()))
    relu = torch.nn.functional.relu
    loss_d = sum(relu(1 - real[i][-1]).mean() + relu(1 + detached[i][-1]).mean() for i in (0, 1)) / 2
    assert_equal_gradients(gradients(D), 0.5 * loss_d, D2)
    gan = -sum(judged[i][-1].mean() for i in (0, 1)) / 2
    features = sum((judged[i][j] - real[i][j].detach()).abs().mean() for i in (0, 1) for j in (0, 1)) / 4
    assert losses["loss_g_features"].item() == pytest.approx(features.item(), rel=1e-4)
    assert_equal_gradients(gradients(G), gan + 3 * features, G2)


def test_the_weight_of_l1_falls_over_the_run():
    found = []
    for number in (0, 50, 100):
        G, D = networks()
        weights = Weights(lambda_gan=0, lambda_l1=80.0, lambda_l1_end=20.0)
        losses = make_step(G, D, weights=weights)(batch(), Progress(number, 100))
        found.append((losses["loss_g"] / losses["loss_g_l1"]).item())
    assert found == pytest.approx([80, 50, 20], rel=1e-5)


def test_all_that_d_sees_is_augmented_alike():
    G, D = networks("none")
    seen = []
    D.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    data = batch()
    data["target"] = data["source"].clone()  # so that source and target must stay equal
    make_step(G, D, gan_loss="relativistic", diff_augment=("color", "translation", "cutout"))(data)
    real, fake, judged, judged_real = seen
    assert torch.equal(real[:, :3], real[:, 3:])
    assert not torch.equal(real[:, :3], data["source"])
    for pair in (fake, judged, judged_real):
        assert torch.equal(pair[:, :3], real[:, :3])
    assert torch.equal(judged, fake)


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_bf16_penalties_are_those_of_fp32(norm):
    found = []
    for bf16 in (False, True):
        G, D = networks(norm)
        losses = make_step(G, D, gan_loss="hinge", weights=Weights(r1=1.0), bf16=bf16)(batch())
        found.append(losses["loss_r1"].item())
    assert found[0] == found[1]  # real pairs and D are equal, and the penalty is computed in float32
