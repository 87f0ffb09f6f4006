"""One step of CUT and FastCUT against the paper's formulas, written out again."""

import copy

import pytest
import torch
import torch.nn.functional as F

from cyclegan.cut_step import CutStep, CutWeights
from cyclegan.patch_heads import PatchHeads
from ganvas.nn.cpu_kernels import optimize_for_cpu
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.training.optimizer import Adam
from ganvas.training.schedule import Progress

NAMES = ("G", "D", "heads")
PATCHES = 16  # all locations of the blocks at 16 pixels
CUT = CutWeights(nce_patches=PATCHES)
FASTCUT = CutWeights(10.0, has_identity=False, flips=True, nce_patches=PATCHES)


class NoUpdate(Adam):
    """Leaves the weights, so that gradients can be compared."""

    def step(self, closure=None):
        pass


def networks(channels=(3, 3), norm="instance"):
    torch.manual_seed(0)
    G = ResNetGenerator(*channels, base_channels=4, num_blocks=2, resampling="blur")
    D = PatchDiscriminator(channels[1], base_channels=4, num_layers=1, norm=norm)
    return {"G": G, "D": D, "heads": PatchHeads(G.feature_channels)}


def batch(n=2, channels=(3, 3)):
    rng = torch.Generator().manual_seed(1)
    return {d: torch.rand(n, c, 16, 16, generator=rng) * 2 - 1 for d, c in zip("ab", channels, strict=True)}


def make_step(nets, adam=NoUpdate, domains=("a", "b"), **options):
    optimizers = {name: adam(nets[name].named_parameters(), 1e-3) for name in NAMES}
    return CutStep(nets["G"], nets["D"], nets["heads"], optimizers, nets["G"].feature_layers, domains, **options)


def gradients(nets):
    return {f"{name}.{key}": p.grad.clone() for name in NAMES for key, p in nets[name].named_parameters()}


def contrast(nets, output, source, flipped):
    """Park et al. 2020, Eq. 2 and 3, layer by layer and image by image, with logarithms and sums."""
    G, heads, total = nets["G"], nets["heads"], 0.0
    sides = [16 + 6, 16, 8, 4, 4]  # of the features at 16 pixels
    locations = [torch.randperm(side * side)[:PATCHES] for side in sides]
    for layer, head, indices in zip(G.feature_layers, heads.heads, locations, strict=True):
        with torch.no_grad():
            key = G.layers[: layer + 1](source)
        query = G.layers[: layer + 1](output)
        query = query.flip(-1) if flipped else query
        for q, k in zip(query, key, strict=True):
            z, z_key = (F.normalize(head(x.flatten(1).T[indices]), dim=1) for x in (q, k.detach()))
            similarity = (z @ z_key.detach().T / 0.07).exp()
            total = total - (similarity.diagonal() / similarity.sum(1)).log().mean() / len(query)
    return total / len(sides)


def written_out(nets, data, weights):
    """The losses of a step, with its draws in its order: the flip, then the locations of each layer, term by term."""
    G, D, a, b = nets["G"], nets["D"], data["a"], data["b"]
    flipped = weights.flips and bool(torch.rand(()) < 0.5)
    fake = G(a.flip(-1) if flipped else a)
    losses = {
        "loss_d": 0.5 * ((D(b) - 1).square().mean() + D(fake.detach()).square().mean()),
        "loss_g_gan": (D(fake) - 1).square().mean(),
        "loss_nce": contrast(nets, fake, a, flipped),
    }
    nce = losses["loss_nce"]
    if weights.has_identity:
        losses["loss_nce_identity"] = contrast(nets, G(b), b, False)
        nce = 0.5 * (nce + losses["loss_nce_identity"])
    losses["loss_g"] = losses["loss_g_gan"] + weights.lambda_nce * nce
    return losses


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("n", "weights", "seed"), [(1, CUT, 0), (2, CUT, 0), (2, FASTCUT, 0), (1, FASTCUT, 1)])
def test_losses_and_gradients_equal_the_papers(n, weights, seed, layout):
    nets = networks()
    twin, data = copy.deepcopy(nets), batch(n)
    for network in nets.values():  # as the training sets them up
        network.to(memory_format=layout)
        optimize_for_cpu(network)
    torch.manual_seed(seed)
    losses = make_step(nets, weights=weights)({name: x.to(memory_format=layout) for name, x in data.items()})
    torch.manual_seed(seed)
    expected = written_out(twin, data, weights)
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-4
    )
    found = gradients(nets)
    for loss, own in (("loss_g", ("G", "heads")), ("loss_d", ("D",))):
        parameters = {f"{name}.{key}": p for name in own for key, p in twin[name].named_parameters()}
        by_hand = torch.autograd.grad(expected[loss], list(parameters.values()), retain_graph=True)
        for (name, _), gradient in zip(parameters.items(), by_hand, strict=True):
            # A bias before an instance norm has a gradient of rounding errors only.
            assert (found[name] - gradient).norm() < 2e-3 * gradient.norm() + 1e-4, name


def test_both_seeds_of_fastcut_are_seen():
    """One mirrors and the other does not, or the test above would show half."""
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        drawn.append(bool(torch.rand(()) < 0.5))
    assert sorted(drawn) == [False, True]


def test_features_of_a_mirrored_translation_are_mirrored_back():
    """For a generator that keeps every pixel, mirroring makes no difference at any location of any layer."""
    nets = networks()

    class Copy(torch.nn.Module):
        def with_features(self, x, layers):
            return x.clone().requires_grad_(), self.features(x, layers)

        def features(self, x, layers):
            return [x, torch.nn.functional.avg_pool2d(x, 2)]

    heads, data = PatchHeads([3, 3]), batch(1)
    optimizers = {name: NoUpdate(nets[name].named_parameters(), 1e-3) for name in NAMES}
    found = []
    for seed in (0, 1):
        step = CutStep(Copy(), nets["D"], heads, optimizers, (0, 1), weights=FASTCUT)
        torch.manual_seed(seed)
        torch.rand(())
        state = torch.get_rng_state()
        for flips in (True, False):
            step.weights = CutWeights(has_identity=False, flips=flips, nce_patches=PATCHES)
            torch.manual_seed(seed) if flips else torch.set_rng_state(state)
            found.append(step(data)["loss_nce"].item())
    assert found[:2] == pytest.approx([found[0]] * 2, rel=1e-5)
    assert found[2:] == pytest.approx([found[2]] * 2, rel=1e-5)


def test_the_other_direction_swaps_the_domains():
    data, found = batch(channels=(2, 2)), []
    for domains, given in ((("a", "b"), data), (("b", "a"), {"a": data["b"], "b": data["a"]})):
        torch.manual_seed(0)
        found.append(make_step(networks((2, 2)), domains=domains, weights=CUT)(given))
    assert {name: value.item() for name, value in found[0].items()} == {
        name: value.item() for name, value in found[1].items()
    }


def test_domains_that_differ_in_channels_are_refused():
    """The encoder sees translations, too: their channels must be those of the source."""
    with pytest.raises(ValueError, match="the source has 1 channels and the target 4"):
        make_step(networks((1, 4)), weights=FASTCUT)(batch(channels=(1, 4)))


def test_all_networks_are_updated():
    nets = networks()
    before = copy.deepcopy(nets)
    make_step(nets, adam=Adam, weights=CUT)(batch())
    for name in NAMES:
        changed = [
            not torch.equal(p, q) for p, q in zip(nets[name].parameters(), before[name].parameters(), strict=True)
        ]
        assert any(changed), name


def test_penalties_are_lazy_and_halved_with_ds_loss():
    weights = CutWeights(nce_patches=PATCHES, r1=0.4, r2=0.6, penalty_every=4)
    nets, data = networks(norm="none"), batch()
    twin = copy.deepcopy(nets)
    step = make_step(nets, weights=weights, gan_loss="hinge")
    torch.manual_seed(0)
    losses = step(data, Progress(8, 20))
    fake = twin["G"](data["a"]).detach()
    loss = 0.5 * ((1 - twin["D"](data["b"])).clamp(min=0).mean() + (1 + twin["D"](fake)).clamp(min=0).mean())
    for name, gamma, images in (("loss_r1", 0.4, data["b"]), ("loss_r2", 0.6, fake)):
        x = images.clone().requires_grad_()
        scores = twin["D"](x)
        (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        penalty = gradient.square().sum() / scores.numel()
        assert losses[name].item() == pytest.approx(penalty.item(), rel=1e-4)
        loss = loss + 0.5 * 4 * gamma / 2 * penalty
    for p, q in zip(nets["D"].parameters(), torch.autograd.grad(loss, list(twin["D"].parameters())), strict=True):
        torch.testing.assert_close(p.grad, q, rtol=1e-3, atol=1e-5)
    assert "loss_r1" not in step(data, Progress(9, 20))


@pytest.mark.parametrize("seed", [0, 1])  # one of them mirrors
def test_extra_losses_see_the_source_that_was_translated(seed):
    images, seen = batch(), []

    def apart(source, output, target):
        seen.append(source)
        return (source - output).abs().mean() + 0 * target.mean()

    step = make_step(networks(), weights=FASTCUT, extra_losses={"own": (2.0, apart)})
    torch.manual_seed(seed)
    flipped = bool(torch.rand(()) < 0.5)
    torch.manual_seed(seed)
    losses = step(images)
    assert torch.equal(*seen, images["a"].flip(-1) if flipped else images["a"])
    expected = losses["loss_g_gan"] + 10 * losses["loss_nce"] + 2 * losses["loss_g_own"]
    assert losses["loss_g"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_diff_augment_changes_what_d_sees_only():
    """Images of b, translations, and translations again in the loss of G; not what G and the heads are given."""
    seen = []
    for policies in ((), ("color", "cutout")):
        nets, inputs = networks(), {name: [] for name in NAMES}
        for name, module in (("G", nets["G"].layers[0]), ("D", nets["D"]), ("heads", nets["heads"])):

            def record(module, args, kept=inputs[name]):
                kept += args[0] if isinstance(args[0], list) else [args[0]]

            module.register_forward_pre_hook(record)
        make_step(nets, weights=CUT, diff_augment=policies)(batch())
        seen.append(inputs)
    plain, augmented = seen
    # G: inputs, then outputs; D: three batches; heads: keys and queries of five layers, for both terms.
    assert {name: len(inputs) for name, inputs in plain.items()} == {"G": 2, "D": 3, "heads": 20}
    for name in NAMES:
        for first, second in zip(plain[name], augmented[name], strict=True):
            assert torch.equal(first, second) == (name != "D")


def test_bf16_stays_near_fp32():
    results = []
    for bf16 in (False, True):
        nets, seen = networks(), set()
        nets["G"].layers[4].register_forward_hook(lambda module, args, output, seen=seen: seen.add(output.dtype))
        torch.manual_seed(0)
        results.append(make_step(nets, weights=CUT, bf16=bf16)(batch()))
        assert seen == {torch.bfloat16 if bf16 else torch.float32}
        assert {value.dtype for value in results[-1].values()} == {torch.float32}
        assert all(gradient.any() for gradient in gradients(nets).values())
    first, second = results
    for name, value in first.items():
        assert second[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.02), name
