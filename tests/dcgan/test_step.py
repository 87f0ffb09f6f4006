"""One step against Goodfellow's losses, written out again, in each of the three orders."""

import copy
import math

import pytest
import torch
from torch import nn

from dcgan.config import DcganConfig, ModelConfig
from dcgan.data import ImageSet
from dcgan.networks import build_networks, init_weights
from dcgan.step import DcganStep, draw_latents
from dcgan.trainer import build_training
from ganvas.training.config import HardwareConfig
from ganvas.training.fabric import make_fabric
from ganvas.training.optimizer import Adam


class NoUpdate(Adam):
    """Leaves the weights, so that gradients can be compared."""

    def step(self, closure=None):
        pass


def networks(norm="none", num_classes=0):
    G, D = build_networks(base_channels=4, norm=norm, num_classes=num_classes)
    for network in (G, D):
        init_weights(network, "truncated-normal", torch.Generator().manual_seed(0))
    return G, D


def batch(n=6):
    rng = torch.Generator().manual_seed(1)
    return {"image": torch.rand(n, 1, 28, 28, generator=rng) * 2 - 1, "label": torch.arange(n) % 3}


def make_step(G, D, adam=NoUpdate, lr=1e-3, **options):
    return DcganStep(G, D, adam(G.named_parameters(), lr), adam(D.named_parameters(), lr), **options)


def log_d(D, x):
    return torch.log(torch.sigmoid(D(x))).mean()


def log_not_d(D, x):
    return torch.log(1 - torch.sigmoid(D(x))).mean()


@pytest.mark.parametrize("order", ["shared", "fresh"])
def test_gradients_equal_goodfellows_losses(order):
    G, D = networks()
    G2, D2, data = copy.deepcopy(G), copy.deepcopy(D), batch()
    torch.manual_seed(5)
    losses = make_step(G, D, order=order)(data)

    torch.manual_seed(5)
    z = torch.randn(6, 100)
    loss_d = -(log_d(D2, data["image"]) + log_not_d(D2, G2(z).detach()))
    for p, g in zip(D.parameters(), torch.autograd.grad(loss_d, list(D2.parameters())), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-6)
    if order == "fresh":
        z = torch.randn(6, 100)
    loss_g = -log_d(D2, G2(z))
    for p, g in zip(G.parameters(), torch.autograd.grad(loss_g, list(G2.parameters())), strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-6)
    assert losses["loss_d"].item() == pytest.approx(loss_d.item(), rel=1e-4)
    assert losses["loss_g_gan"].item() == pytest.approx(loss_g.item(), rel=1e-4)
    assert losses["accuracy_real"].item() == pytest.approx((D2(data["image"]) > 0).float().mean().item())


def test_keras_order_of_updates():
    """With plain gradient descent as the optimizer, the whole step can be written down."""
    G, D = networks("batch")
    G2, D2, data = copy.deepcopy(G), copy.deepcopy(D), batch()

    class Descent(Adam):
        def __init__(self, parameters, *options):
            super().__init__(parameters := list(parameters), *options)
            self.trained = [parameter for _, parameter in parameters]

        def step(self):
            with torch.no_grad():
                for parameter in self.trained:
                    parameter -= 0.1 * parameter.grad

    torch.manual_seed(5)
    losses = make_step(G, D, Descent, order="keras")(data)

    def descend(network, loss):
        for p, g in zip(network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True):
            p.data -= 0.1 * g

    torch.manual_seed(5)
    predicted = G2.eval()(torch.randn(6, 100)).detach()
    loss_real = -log_d(D2, data["image"])
    descend(D2, loss_real)
    loss_fake = -log_not_d(D2, predicted)
    descend(D2, loss_fake)
    loss_g = -log_d(D2, G2.train()(torch.randn(6, 100)))
    descend(G2, loss_g)
    for mine, theirs in ((G, G2), (D, D2)):
        for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5, msg=name)
    assert losses["loss_d"].item() == pytest.approx((loss_real + loss_fake).item() / 2, rel=1e-4)
    assert G.training


@pytest.mark.parametrize("order", ["shared", "fresh", "keras"])
@pytest.mark.parametrize("learns", ["G", "D"])
def test_each_optimizer_moves_its_own_network_alone(order, learns):
    """One of the two acts: what the other's update did to this network would be seen."""
    nets = dict(zip("GD", networks(), strict=True))
    before = {name: [p.clone() for p in net.parameters()] for name, net in nets.items()}
    optimizers = [(Adam if name == learns else NoUpdate)(net.named_parameters(), 0.01) for name, net in nets.items()]
    DcganStep(*nets.values(), *optimizers, order=order)(batch())
    for name, net in nets.items():
        moved = [not torch.equal(a, b) for a, b in zip(before[name], net.parameters(), strict=True)]
        assert all(moved) if name == learns else not any(moved)
    assert all(p.grad is not None for p in nets["G"].parameters())
    assert not any(p.requires_grad for p in nets["D"].parameters())  # frozen by G's update; thawed by the next step


@pytest.mark.parametrize("order", ["shared", "fresh", "keras"])
def test_update_of_g_draws_new_labels_and_fakes(order):
    G, D = networks(num_classes=3)
    asked, judged = [], []
    G.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[1]))
    D.register_forward_pre_hook(lambda _, inputs: judged.append(inputs[1]))
    data = {**batch(60), "label": torch.ones(60, dtype=torch.long)}
    torch.manual_seed(0)
    make_step(G, D, num_classes=3, order=order)(data)
    assert torch.equal(asked[0], data["label"])  # for D, as many of each class as are real
    assert all(torch.equal(labels, data["label"]) for labels in judged[:2])
    assert len(judged) == 3
    assert torch.equal(judged[2], asked[-1])
    if order == "shared":
        assert len(asked) == 1
    else:
        assert len(asked) == 2
        assert asked[1].bincount(minlength=3).min() >= 10  # of 20 each


def test_a_label_reaches_both_networks():
    G, D = networks(num_classes=3)
    torch.nn.init.normal_(D.embedding.weight)
    data = batch()
    torch.manual_seed(5)
    first = make_step(G, D, num_classes=3)(data)
    torch.manual_seed(5)
    other = make_step(G, D, num_classes=3)({**data, "label": (data["label"] + 1) % 3})
    assert first["loss_d"] != other["loss_d"]
    assert first["loss_g_gan"] != other["loss_g_gan"]


def test_label_smoothing_affects_real_images_only():
    G, D = networks()
    data = batch()
    torch.manual_seed(5)
    smooth = make_step(G, D, label_smoothing=0.1)(data)["loss_d"]
    torch.manual_seed(5)
    fake = G(torch.randn(6, 100))
    expected = -(0.9 * log_d(D, data["image"]) + 0.1 * log_not_d(D, data["image"]) + log_not_d(D, fake))
    assert smooth.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(("latent", "low", "high", "deviation"), [("normal", -6, 6, 1), ("uniform", -1, 1, 3**-0.5)])
def test_latents(latent, low, high, deviation):
    z = draw_latents(1000, 100, latent, device="cpu", generator=torch.Generator().manual_seed(0))
    assert low <= z.min() < 0.99 * low / (6 if latent == "normal" else 1)
    assert 0.99 * high / (6 if latent == "normal" else 1) < z.max() <= high
    assert z.std().item() == pytest.approx(deviation, rel=0.01)


class TestPerfectDiscriminator:
    """Real images are all white and generated ones black; D's scores are those that its loss asks for."""

    class White(nn.Module):
        """D, or G, whose scores or images depend on one parameter that nothing moves."""

        def __init__(self, answer):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.answer = answer

        def forward(self, x, labels=None):
            return self.scale * self.answer(x) + 0 * x.sum()

    # Scores of real and of generated images. Those of lsgan are 0.01 off: exactly 0 would hide a threshold at 0.
    SCORES = {  # noqa: RUF012
        ("vanilla", 0.0): (8.0, -8.0),
        ("vanilla", 0.1): (math.log(0.9 / 0.1), -8.0),
        ("vanilla", 0.6): (math.log(0.4 / 0.6), -8.0),
        ("lsgan", 0.0): (0.99, 0.01),
        ("lsgan", 0.1): (0.89, 0.01),
        ("lsgan", 0.6): (0.39, 0.01),
        ("hinge", 0.0): (1.2, -1.2),
    }

    def losses(self, gan_loss, label_smoothing, order, right=True):
        real, fake = self.SCORES[gan_loss, label_smoothing][:: 1 if right else -1]
        D = self.White(lambda x: torch.where(x.flatten(1).mean(1) > 0, real, fake))
        G = self.White(lambda z: torch.full((len(z), 1, 28, 28), -1.0))
        options = {"gan_loss": gan_loss, "label_smoothing": label_smoothing, "order": order}
        found = make_step(G, D, **options)({"image": torch.ones(6, 1, 28, 28)})
        return {name: value.item() for name, value in found.items()}

    @pytest.mark.parametrize("order", ["shared", "keras"])
    @pytest.mark.parametrize(("gan_loss", "smoothing"), SCORES)
    def test_its_accuracy_is_1_and_that_of_its_opposite_0(self, gan_loss, smoothing, order):
        for right in (True, False):
            losses = self.losses(gan_loss, smoothing, order, right)
            assert (losses["accuracy_real"], losses["accuracy_fake"]) == (right, right)

    @pytest.mark.parametrize("order", ["shared", "keras"])
    @pytest.mark.parametrize(("gan_loss", "smoothing"), SCORES)
    def test_it_has_won(self, gan_loss, smoothing, order, tmp_path):
        model = ModelConfig(gan_loss=gan_loss, label_smoothing=smoothing, step_order=order, base_channels=4)
        data = ImageSet(torch.arange(256).expand(20, 1, 16, 256).byte()[..., :16], None, (), "own", "")
        fabric = make_fabric(HardwareConfig(device="cpu"))
        trained = build_training(DcganConfig(model=model), data, tmp_path, fabric).trainer

        # The lowest loss is the entropy of the label, or 0; a D that guesses gives all images the mean of the labels.
        def entropy(p):
            return -sum(each * math.log(each) for each in (p, 1 - p) if each)

        mean = (1 - smoothing) / 2
        lowest = entropy(smoothing) if gan_loss == "vanilla" else 0
        guessing = {"vanilla": 2 * entropy(mean), "lsgan": 2 * mean**2, "hinge": 2}[gan_loss]
        loss_d = lowest + 0.015 * (guessing - lowest)  # 1.5 times as far from the lowest as allowed
        loss_d *= 0.5 if order == "keras" else 1  # that order logs the mean of D's two losses
        won = self.losses(gan_loss, smoothing, order)
        found = []
        for step, losses in enumerate([won | {"loss_d": loss_d}] * 2 + [won] * 2, start=1):
            warnings = trained.check_health(step, losses, with_images=False).warnings
            found.append(sum("has won" in warning for warning in warnings))
        assert found == [0, 0, 0, 1]  # twice in a row
