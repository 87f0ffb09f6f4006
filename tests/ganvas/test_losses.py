import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor, nn

from ganvas.losses import (
    feature_matching_loss,
    gan_loss_d,
    gan_loss_d_fake,
    gan_loss_d_real,
    gan_loss_g,
    gradient_penalty,
    l1_loss,
    lowest_gan_loss_d,
    patch_nce_loss,
    real_threshold,
    squared_gradient,
)
from ganvas.nn.patchgan import PatchDiscriminator

GAN_LOSSES = ["vanilla", "lsgan", "hinge", "wgangp"]
SCORES = st.lists(st.floats(-15, 15, width=32), min_size=1, max_size=12)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def expected_d(gan_loss: str, real: np.ndarray, fake: np.ndarray) -> float:
    if gan_loss == "vanilla":
        return float(-np.log(sigmoid(real)).mean() - np.log(sigmoid(-fake)).mean())  # 1 - sigmoid(x) = sigmoid(-x)
    if gan_loss == "lsgan":
        return float(np.mean((real - 1) ** 2) + np.mean(fake**2))
    if gan_loss == "hinge":
        return float(np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean())
    return float(fake.mean() - real.mean())


def expected_g(gan_loss: str, fake: np.ndarray) -> float:
    if gan_loss == "vanilla":
        return float(-np.log(sigmoid(fake)).mean())
    if gan_loss == "lsgan":
        return float(np.mean((fake - 1) ** 2))
    return float(-fake.mean())


# ---- Adversarial losses ----


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
@given(real=SCORES, fake=SCORES)
@settings(deadline=None)
def test_values_by_the_papers_formulas(gan_loss: str, real: list[float], fake: list[float]) -> None:
    loss_d = gan_loss_d(torch.tensor(real), torch.tensor(fake), gan_loss)
    loss_g = gan_loss_g(torch.tensor(fake), gan_loss)
    assert loss_d.shape == loss_g.shape == ()
    assert loss_d.item() == pytest.approx(expected_d(gan_loss, np.array(real), np.array(fake)), rel=1e-4, abs=1e-5)
    assert loss_g.item() == pytest.approx(expected_g(gan_loss, np.array(fake)), rel=1e-4, abs=1e-5)


PAIRS = st.lists(st.tuples(st.floats(-15, 15, width=32), st.floats(-15, 15, width=32)), min_size=1, max_size=12)


@given(pairs=PAIRS)
@settings(deadline=None)
def test_relativistic_pairs_by_the_formula(pairs: list[tuple[float, float]]) -> None:
    real, fake = np.array(pairs).T
    a, b = (torch.tensor(values, dtype=torch.float32) for values in (real, fake))
    expected_loss_d = -np.log(sigmoid(real - fake)).mean()  # Huang et al. 2024, Eq. 2, with f(t) = -log(1 + exp(-t))
    expected_loss_g = -np.log(sigmoid(fake - real)).mean()
    assert gan_loss_d(a, b, "relativistic").item() == pytest.approx(expected_loss_d, rel=1e-4, abs=1e-5)
    assert gan_loss_g(b, "relativistic", real_scores=a).item() == pytest.approx(expected_loss_g, rel=1e-4, abs=1e-5)


def test_relativistic_needs_pairs() -> None:
    one, two = torch.zeros(1, 1), torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"real_scores is \(2, 1\) and fake_scores is \(1, 1\)"):
        gan_loss_d(two, one, "relativistic")
    with pytest.raises(ValueError, match="real_scores is None"):
        gan_loss_g(one, "relativistic")
    for half in (gan_loss_d_real, gan_loss_d_fake):
        with pytest.raises(ValueError, match="use gan_loss_d and gan_loss_g"):
            half(one, "relativistic")
    with pytest.raises(ValueError, match="no labels to smooth"):
        gan_loss_d(one, one, "relativistic", label_smoothing=0.1)


def test_vanilla_is_the_default_and_known_at_zero() -> None:
    zeros = torch.zeros(2, 1, 3, 3)
    assert gan_loss_d(zeros, zeros).item() == pytest.approx(2 * np.log(2))
    assert gan_loss_g(zeros).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
def test_gradients(gan_loss: str) -> None:
    real = torch.tensor([-2.0, 0.3, 1.7], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([-1.6, 0.2, 2.5], dtype=torch.float64, requires_grad=True)
    n = 3
    for_d, for_g = {
        "vanilla": (-sigmoid(-real.detach().numpy()) / n, -sigmoid(-fake.detach().numpy()) / n),
        "lsgan": (2 * (real.detach().numpy() - 1) / n, 2 * (fake.detach().numpy() - 1) / n),
        "hinge": (np.array([-1, -1, 0]) / n, np.full(3, -1 / n)),
        "wgangp": (np.full(3, -1 / n), np.full(3, -1 / n)),
    }[gan_loss]
    gan_loss_d(real, fake.detach(), gan_loss).backward()
    gan_loss_g(fake, gan_loss).backward()
    np.testing.assert_allclose(real.grad, for_d, rtol=1e-5)
    np.testing.assert_allclose(fake.grad, for_g, rtol=1e-5)


def test_vanilla_is_finite_for_a_sure_discriminator() -> None:
    sure = torch.tensor([200.0])
    assert gan_loss_d(-sure, sure).item() == pytest.approx(400)
    assert gan_loss_g(-sure).item() == pytest.approx(200)
    assert gan_loss_d(sure, -sure).item() == 0


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
def test_half_precision_is_compared_in_float32(gan_loss: str) -> None:
    # 1,000 scores of 0.01: their mean in bfloat16 would be off by a percent.
    scores = torch.full((1000,), 0.01, dtype=torch.bfloat16)
    exact = scores.double().numpy()
    for loss, expected in (
        (gan_loss_d(scores, scores, gan_loss), expected_d(gan_loss, exact, exact)),
        (gan_loss_g(scores, gan_loss), expected_g(gan_loss, exact)),
    ):
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_real_and_fake_may_come_in_different_numbers() -> None:
    assert gan_loss_d(torch.ones(1, 1, 2, 2), torch.ones(3, 1, 5, 5), "lsgan").item() == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda gan_loss: gan_loss_d(torch.ones(1), torch.ones(1), gan_loss),
        lambda gan_loss: gan_loss_g(torch.ones(1), gan_loss),
        real_threshold,
        lowest_gan_loss_d,
    ],
)
def test_unknown_loss(function: object) -> None:
    with pytest.raises(ValueError, match=r"'wgan'.*'vanilla', 'lsgan', 'hinge', 'wgangp'"):
        function("wgan")


SMOOTHED = [(gan_loss, smoothing) for gan_loss in ("vanilla", "lsgan") for smoothing in (0.0, 0.1, 0.5)]


@pytest.mark.parametrize(("gan_loss", "smoothing"), [*SMOOTHED, ("hinge", 0.0), ("wgangp", 0.0)])
def test_the_threshold_is_where_the_best_discriminator_of_equal_densities_is(gan_loss: str, smoothing: float) -> None:
    """Where real and generated images are equally frequent, the score of least loss is the threshold (found by SciPy).

    A hinge loss is flat there, between -1 and 1, and a Wasserstein loss everywhere: 0 is the middle of both.
    """

    def loss(score: float) -> float:
        both = torch.tensor([score], dtype=torch.float64)
        return gan_loss_d(both, both, gan_loss, label_smoothing=smoothing).item()

    threshold = real_threshold(gan_loss, label_smoothing=smoothing)
    if gan_loss in ("vanilla", "lsgan"):
        assert threshold == pytest.approx(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x, abs=2e-2)
    else:
        assert threshold == 0
        assert loss(0.9) == pytest.approx(loss(-0.9), abs=1e-6)
        assert loss(0) <= loss(0.5) + 1e-6


@pytest.mark.parametrize(("gan_loss", "smoothing"), [*SMOOTHED, ("hinge", 0.0)])
def test_the_lowest_loss_is_what_a_search_finds(gan_loss: str, smoothing: float) -> None:
    def loss(scores: np.ndarray) -> float:
        real, fake = torch.from_numpy(scores).split(1)
        return gan_loss_d(real, fake, gan_loss, label_smoothing=smoothing).item()

    found = minimize(loss, np.array([0.5, -0.5]), method="Nelder-Mead", bounds=[(-20, 20)] * 2).fun
    assert lowest_gan_loss_d(gan_loss, label_smoothing=smoothing) == pytest.approx(found, abs=1e-4)


def test_a_wasserstein_loss_has_no_lowest_value() -> None:
    assert lowest_gan_loss_d("wgangp") == -np.inf


# ---- Gradient penalty ----


def images(seed: int, n: int = 4) -> Tensor:
    return torch.rand(n, 3, 5, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_penalty_of_a_linear_critic() -> None:
    # The gradient is the same everywhere: the weights, of norm 3 here.
    weights = images(2, 1).double()
    weights = (3 * weights / weights.norm()).float().requires_grad_()
    penalty = gradient_penalty(lambda x: (x * weights).sum(dim=(1, 2, 3)), images(0), images(1))
    assert penalty.item() == pytest.approx((3 - 1) ** 2, rel=1e-5)
    penalty.backward()
    # d/dw (|w| - 1)² = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(weights.grad, 2 * (3 - 1) * weights.detach() / 3)


@pytest.mark.parametrize("shape", [(), (1,), (1, 2, 3), (1, 6, 6)])
def test_penalty_is_that_of_an_images_mean_score(shape: tuple[int, ...]) -> None:
    """P patches that each score an image by weights of their own: the loss takes their mean, so its slope counts."""
    P = int(np.prod(shape))
    weights = np.random.default_rng(P).normal(size=(P, 90))
    slope = np.linalg.norm(weights.mean(axis=0))
    patches = torch.from_numpy(weights).float()
    penalty = gradient_penalty(
        lambda x: (x.flatten(1) @ patches.T).unflatten(1, shape) if shape else x.flatten(1) @ patches[0],
        images(0),
        images(1),
    )
    assert penalty.item() == pytest.approx((slope - 1) ** 2, rel=1e-4)


def test_a_critic_of_many_patches_settles_where_its_mean_score_has_slope_one() -> None:
    """Descent on the loss and the penalty: without a constraint that fits the loss, the slope would be 1/36."""
    weights = torch.full((1, 3, 5, 6), 0.01, requires_grad=True)
    real, fake = images(0), images(0) - 0.1  # all real images are brighter by the same amount

    def critic(x: Tensor) -> Tensor:
        return (x * weights).sum(dim=(1, 2, 3))[:, None].expand(-1, 36)

    for _ in range(300):
        loss = gan_loss_d(critic(real), critic(fake), "wgangp") + 10 * gradient_penalty(critic, real, fake)
        (gradient,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights -= 0.02 * gradient
    # The least of -0.1 |1| |w| + 10 (|w| - 1)²: at |w| = 1 + 0.1 |1| / 20, where |1| is the norm of 90 ones.
    assert weights.norm().item() == pytest.approx(1 + 0.1 * 90**0.5 / 20, rel=1e-2)


def test_penalty_is_computed_at_one_point_per_image_between_real_and_fake() -> None:
    # The critic |x|² / 2 has the slope |x|. From fake = 0 to a real image of norm 1 that is t, uniform in 0 … 1,
    # so the penalty is the mean of (t - 1)² over the images: 1/3, with a standard error of 0.0047 here.
    real = torch.zeros(4000, 1, 1, 2)
    real[..., 0] = 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        penalty = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, torch.zeros_like(real))
    assert 1 / 3 - 0.024 < penalty.item() < 1 / 3 + 0.024


def test_penalty_between_equal_images_is_known() -> None:
    x = images(0)
    norms = np.linalg.norm(x.numpy().reshape(4, -1), axis=1)
    penalty = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, x, x)
    assert penalty.item() == pytest.approx(float(np.mean((norms - 1) ** 2)), rel=1e-4)


def test_penalty_leaves_the_generator_alone() -> None:
    real, fake = images(0).requires_grad_(), images(1).requires_grad_()
    critic = nn.Conv2d(3, 1, 3)
    gradient_penalty(critic, real, fake).backward()
    assert real.grad is None
    assert fake.grad is None
    assert critic.weight.grad is not None
    assert critic.weight.grad.abs().max() > 0


def test_penalty_runs_in_float32() -> None:
    critic = nn.Conv2d(3, 1, 3)
    seen = []

    def score(x: Tensor) -> Tensor:
        out = critic(x)
        seen.append((x.dtype, out.dtype))
        return out

    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(score, images(0).bfloat16(), images(1).bfloat16())
    assert seen == [(torch.float32, torch.float32)]
    assert penalty.dtype == torch.float32


def test_penalty_needs_equal_shapes() -> None:
    with pytest.raises(ValueError, match=r"real is \(4, 3, 5, 6\) and fake is \(2, 3, 5, 6\)"):
        gradient_penalty(lambda x: x, images(0), images(1, 2))


# ---- Zero-centered penalties ----


def test_squared_gradient_of_one_score_an_image() -> None:
    # D(x) = |x|² / 2 has the gradient x: R1 is the mean of |x|².
    x = images(0)
    found = squared_gradient(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, x)
    assert found.item() == pytest.approx(float((x.numpy() ** 2).sum() / len(x)), rel=1e-5)


def test_squared_gradient_of_patches_is_that_of_their_sum_divided_by_their_number() -> None:
    # P positions of a 1x1 convolution: each pixel has the gradient w of its own score, so |grad|² / P = |w|².
    critic = nn.Conv2d(3, 1, 1)
    found = squared_gradient(critic, images(0))
    assert found.item() == pytest.approx(critic.weight.square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_gradient_of_the_penalty_equals_finite_differences(norm: str) -> None:
    """Double backward through our discriminator, along one direction of its first weights."""
    torch.manual_seed(0)
    critic = PatchDiscriminator(3, base_channels=2, num_layers=1, norm=norm).double()
    weights, x = critic.layers[0][0].weight, images(0).double().repeat(1, 1, 2, 2)

    def penalty() -> Tensor:
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(leaf).sum(), leaf, create_graph=True)
        return gradient.square().sum() / critic(x).numel()

    # In float32, as trained; the formula and the differences are in float64.
    direction, step = torch.randn_like(weights), 1e-5
    with torch.no_grad():
        weights += step * direction
        above = penalty_of(penalty)
        weights -= 2 * step * direction
        below = penalty_of(penalty)
        weights += step * direction
    critic.float()
    squared_gradient(critic, x).backward()
    found = (weights.grad * direction.float()).sum().item()
    assert found == pytest.approx((above - below) / (2 * step), rel=2e-3)


def penalty_of(penalty: object) -> float:
    with torch.enable_grad():
        return penalty().item()


def test_squared_gradient_runs_in_float32_and_leaves_the_images_alone() -> None:
    critic, x = nn.Conv2d(3, 1, 3), images(0).bfloat16().requires_grad_()
    plain = squared_gradient(critic, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = squared_gradient(critic, x)
    assert found.dtype == torch.float32
    assert found.item() == plain.item()
    found.backward()
    assert x.grad is None
    assert critic.weight.grad.abs().max() > 0


# ---- Feature matching ----


def test_feature_matching_by_the_formula() -> None:
    fake, real = [images(0), images(1, 2)], [images(2), images(3, 2)]
    expected = np.mean([np.abs(a.numpy() - b.numpy()).mean() for a, b in zip(fake, real, strict=True)])
    assert feature_matching_loss(fake, real).item() == pytest.approx(float(expected), rel=1e-5)
    assert feature_matching_loss(fake, fake).item() == 0


def test_feature_matching_moves_the_fakes_only() -> None:
    fake, real = images(0).requires_grad_(), images(1).requires_grad_()
    feature_matching_loss([fake], [real]).backward()
    assert real.grad is None
    assert fake.grad.abs().max() > 0


def test_feature_matching_needs_the_same_layers() -> None:
    with pytest.raises(ValueError, match="2 layers of fake and 1 of real"):
        feature_matching_loss([images(0), images(1)], [images(0)])
    with pytest.raises(ValueError, match="0 layers"):
        feature_matching_loss([], [])


# ---- L1 ----


def test_l1_by_the_formula() -> None:
    output, target = images(0).requires_grad_(), images(1)
    loss = l1_loss(output, target)
    a, b = output.detach().numpy(), target.numpy()
    assert loss.item() == pytest.approx(float(np.abs(a - b).mean()), rel=1e-5)
    loss.backward()
    np.testing.assert_allclose(output.grad, np.sign(a - b) / a.size, rtol=1e-5)


def test_l1_of_half_precision_is_float32() -> None:
    output, target = images(0).bfloat16(), images(1).bfloat16()
    loss = l1_loss(output, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        float(np.abs(output.double().numpy() - target.double().numpy()).mean()), rel=1e-5
    )


def test_l1_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"output is \(4, 3, 5, 6\) and target is \(1, 3, 5, 6\)"):
        l1_loss(images(0), images(1, 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.essential
def test_the_penalty_of_a_compiled_discriminator() -> None:
    """Compiled code has no second derivatives; the penalty's gradient is the plain network's."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(0.2), nn.Conv2d(2, 1, 3))
    real, fake = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    gradients = []
    for network in (plain, torch.compile(plain, backend="aot_eager")):
        plain.zero_grad()
        network(real).sum().backward()  # compiled by now
        plain.zero_grad()
        torch.manual_seed(1)
        gradient_penalty(network, real, fake).backward()
        gradients.append(plain[0].weight.grad.clone())
    assert torch.equal(*gradients)
    assert gradients[0].abs().max() > 1e-3


# ---- PatchNCE ----


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@given(st.integers(1, 3), st.integers(2, 6), st.integers(1, 8), st.floats(0.05, 2))
@settings(max_examples=25, deadline=None)
def test_patch_nce_by_the_formula(N: int, P: int, D: int, temperature: float) -> None:
    """Park et al. 2020, Eq. 2, patch by patch."""
    query, key = unit(N, P, D), unit(N, P, D, seed=1)
    terms = []
    for q, k in zip(query.double().numpy(), key.double().numpy(), strict=True):
        for s in range(P):
            others = [np.exp(q[s] @ k[n] / temperature) for n in range(P) if n != s]
            right = np.exp(q[s] @ k[s] / temperature)
            terms.append(-np.log(right / (right + sum(others))))
    assert patch_nce_loss(query, key, temperature=temperature).item() == pytest.approx(
        np.mean(terms), rel=1e-4, abs=1e-6
    )


def test_patch_nce_of_equal_features_is_the_log_of_the_patches() -> None:
    features = unit(2, 1, 16).expand(2, 256, 16)
    assert patch_nce_loss(features, features).item() == pytest.approx(np.log(256), rel=1e-5)


def test_patch_nce_of_orthogonal_features() -> None:
    """Right ones have similarity 1 and all others 0; a query that is like none of them is no better than a guess."""
    features = torch.eye(32)[None, :8]
    expected = np.log(1 + 7 * np.exp(-1 / 0.07))
    assert patch_nce_loss(features, features).item() == pytest.approx(expected, abs=5e-7)
    assert patch_nce_loss(torch.eye(32)[None, 8:16], features).item() == pytest.approx(np.log(8), rel=1e-5)
    swapped = patch_nce_loss(features, features.roll(1, dims=1))
    assert swapped.item() == pytest.approx(1 / 0.07, rel=1e-2)


def test_patch_nce_compares_patches_of_one_image_only() -> None:
    query, key = unit(2, 5, 4), unit(2, 5, 4, seed=1)
    alone = [patch_nce_loss(query[n : n + 1], key[n : n + 1]).item() for n in range(2)]
    assert patch_nce_loss(query, key).item() == pytest.approx(np.mean(alone), rel=1e-5)


def test_patch_nce_trains_the_query_only() -> None:
    query, key = (unit(1, 4, 3, seed=seed).requires_grad_() for seed in range(2))
    patch_nce_loss(query, key).backward()
    assert key.grad is None
    # d loss / d q_s = (sum over n of softmax_n * k_n - k_s) / (tau * P)
    weights = torch.softmax(query[0] @ key[0].T / 0.07, dim=1).detach()
    torch.testing.assert_close(query.grad[0], (weights @ key[0].detach() - key[0].detach()) / (0.07 * 4))


def test_patch_nce_is_computed_in_float32() -> None:
    query, key = unit(1, 64, 8), unit(1, 64, 8, seed=1)
    loss = patch_nce_loss(query.bfloat16(), key.bfloat16())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(patch_nce_loss(query.bfloat16().float(), key.bfloat16().float()).item())


@pytest.mark.parametrize(
    ("query", "key", "message"),
    [
        ((1, 4, 3), (1, 5, 3), r"query is \(1, 4, 3\) and key is \(1, 5, 3\)"),
        ((4, 3), (4, 3), r"query is \(4, 3\); expected \[N, P, D\]"),
        ((2, 1, 3), (2, 1, 3), "P of at least 2"),
    ],
)
def test_patch_nce_refuses_other_shapes(query: tuple[int, ...], key: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_nce_loss(torch.zeros(query), torch.zeros(key))
