"""Options, losses, batch norm, compilation and several processes of a CycleGAN training."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch

import ganvas
from cyclegan import data, trainer
from cyclegan.__main__ import Train
from cyclegan.config import CycleGanConfig, DataConfig, preset
from ganvas.cli.train import parse_train
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.errors import UserError
from ganvas.evaluation.detail import gradient_magnitude, octave_energies
from ganvas.evaluation.metrics import sliced_wasserstein
from ganvas.files import sha256
from ganvas.models.folder import load_model
from ganvas.models.tensors import load_tensors
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.training.fabric import make_fabric


def model_digest(run):
    return sha256(run / "model" / "model.safetensors")


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_model_translates_in_both_directions(trained):
    config, generators = load_model(trained)
    assert config.kind == "cyclegan"
    assert generators.keys() == {"a2b", "b2a"}
    image = read_image(next((trained / "samples").iterdir()))[:30, :41]
    for direction in ("a2b", "b2a"):
        assert ganvas.load(trained, direction=direction).translate(image).shape == image.shape
    with pytest.raises(UserError, match="choose a direction"):
        ganvas.load(trained)


def test_samples_show_both_directions_and_cycles(trained):
    sheet = read_image(trained / "samples" / "step-00000006.png")
    assert sheet.shape[0] > 5 * 96  # three images of a, two of b, enlarged
    assert sheet.shape[1] > 4 * 96  # source, translated, cycled back, identity


@pytest.mark.parametrize(
    "options",
    [
        "--generator unet --num-blocks None --levels 3",
        "--norm batch --discriminator-norm batch --batch-size 2 --precision fp32",
        "--gan-loss vanilla --upsampling resize --dropout 0.5",
        "--gan-loss hinge --patch-layers 0 --discriminator-norm none --norm none",
        "--gan-loss wgangp",
        "--lambda-identity 0 --pool-size 0",
        "--batch-size 4 --grad-accum-steps 2 --activation-checkpointing",
        "--ema 0.9 --no-flip --load-size 0",
    ],
)
@pytest.mark.slow
@pytest.mark.essential
def test_options_train(train, tmp_path, options):
    code, _, err = train(tmp_path / "run", *options.split(), "--steps", 2)
    assert code == 0, err
    assert all(torch.isfinite(value).all() for value in load_tensors(tmp_path / "run/model/model.safetensors").values())


@pytest.mark.parametrize(
    ("options", "in_generators", "in_discriminators"),
    [
        ("", {1, 2}, {1, 2}),
        ("--norm batch", {1}, {1, 2}),
        ("--dropout 0.5", {1}, {1, 2}),
        ("--activation-checkpointing", {1}, {1, 2}),
        ("--discriminator-norm batch", {1, 2}, {1}),
    ],
)
@pytest.mark.slow
def test_passes_are_joined_only_where_the_result_is_the_same(
    train, tmp_path, monkeypatch, options, in_generators, in_discriminators
):
    """Nor with --activation-checkpointing, where a joined pass would keep the activations of two images."""
    seen = {ResNetGenerator: set(), PatchDiscriminator: set()}
    for kind, sizes in seen.items():

        def recorded(network, images, forward=kind.forward, sizes=sizes):
            sizes.add(len(images))
            return forward(network, images)

        monkeypatch.setattr(kind, "forward", recorded)
    code, _, err = train(tmp_path / "run", *options.split(), "--steps", 1)
    assert code == 0, err
    assert seen == {ResNetGenerator: in_generators, PatchDiscriminator: in_discriminators}


@pytest.mark.slow
def test_training_continues_with_one_warning_where_torch_cannot_compile(train, trained, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    code, _, err = train(tmp_path / "run", "--compile")
    assert code == 0, err
    assert err.count("--compile: torch.compile does not work here (no C++ compiler). Continuing without it.") == 1
    assert model_digest(tmp_path / "run") == model_digest(trained)
    done = re.search(r"Done: 6 steps in \S+ minutes, peak memory (\S+) GB\.", err)
    assert 0.1 < float(done.group(1)) < 50


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler silences it where it is no error
@pytest.mark.slow
def test_compiled_networks_learn_equally_and_keep_their_names(train, trained, tmp_path, monkeypatch):
    """With torch's own operations behind the compiled graphs: no C++ compiler is needed."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    code, _, err = train(tmp_path / "run", "--compile")
    assert code == 0, err
    first, expected = (next(line for line in metrics(run) if "loss_g" in line) for run in (tmp_path / "run", trained))
    assert {name: first[name] for name in first if name.startswith("loss_")} == pytest.approx(
        {name: expected[name] for name in expected if name.startswith("loss_")}, rel=0.02
    )
    for name in ("G_ab", "G_ab.adam", "D_a"):
        files = [run / "checkpoints/step-00000006" / f"{name}.safetensors" for run in (tmp_path / "run", trained)]
        assert load_tensors(files[0]).keys() == load_tensors(files[1]).keys()


@pytest.mark.slow
def test_channels_may_differ(cyclegan, train, own_domains, tmp_path):
    for path in own_domains.glob("*A/*.png"):
        write_image(path, read_image(path)[..., :1])
    code, _, err = train(tmp_path / "run", "--lambda-identity", 0, data=own_domains)
    assert code == 0, err
    assert "1 of domain a, 3 of domain b" in err
    for direction, folder, channels in (("a2b", "testA", 3), ("b2a", "testB", 1)):
        out = tmp_path / direction
        assert cyclegan("translate", tmp_path / "run", own_domains / folder, out, "--direction", direction)[0] == 0
        assert {read_image(path).shape[2] for path in out.iterdir()} == {channels}


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        (["--norm", "batch"], "picture"),
        (["--norm", "batch", "--batch-size", "2"], "running"),
        (["--norm", "batch", "--batch-size", "2", "--grad-accum-steps", "2"], "picture"),
        ([], "running"),  # instance norm has no modes
    ],
)
@pytest.mark.slow
def test_without_val_batch_norm_stays_in_the_mode_of_the_training(train, domains, tmp_path, options, mode):
    code, _, err = train(tmp_path / "run", *options, "--steps", 1)
    assert code == 0, err
    assert load_model(tmp_path / "run")[0].statistics == mode


@pytest.fixture
def build(tmp_path, with_hidden_options):
    """Build the model as a training does, without a step."""

    def model(folder, *options):
        line = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *LONG.split(), "--device", "cpu"]
        _, *line = with_hidden_options("cyclegan", [*line, "--precision", "fp32", *options])
        config = parse_train("cyclegan", Train, CycleGanConfig, (), preset, line).options
        config = data.with_channels(config)[0]
        return trainer.build_training(config, tmp_path / "run", make_fabric(config.hardware)).trainer

    return model


def batch(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {domain: torch.rand(2, 3, 16, 16, generator=rng) * 2 - 1 for domain in "ab"}


@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.slow
@pytest.mark.essential
def test_averages_are_validated_and_saved(build, domains_with_truth, tmp_path, ema):
    model = build(domains_with_truth, "--ema", ema, "--lr", "0.01")
    for seed in range(3):
        model.step(batch(seed))
    config = replace(CycleGanConfig(), data=DataConfig(data=domains_with_truth, image_size=16))
    dataset = data.open_split(config, "val", None, augment=False)
    held_out = {domain: torch.stack([dataset.tensor(domain, i) for i in range(2)]) for domain in "ab"}

    @torch.no_grad()
    def scores(G):
        fake_b, fake_a = G["G_ab"](held_out["a"]), G["G_ba"](held_out["b"])
        return {
            "val_cycle_a": (G["G_ba"](fake_b) - held_out["a"]).abs().mean().item(),
            "val_cycle_b": (G["G_ab"](fake_a) - held_out["b"]).abs().mean().item(),
            "val_swd_a2b": sliced_wasserstein(fake_b, held_out["b"]).mean,
            "val_swd_b2a": sliced_wasserstein(fake_a, held_out["a"]).mean,
            "val_sharpness_a2b": (gradient_magnitude(fake_b).mean() / gradient_magnitude(held_out["b"]).mean()).item(),
            "val_sharpness_b2a": (gradient_magnitude(fake_a).mean() / gradient_magnitude(held_out["a"]).mean()).item(),
            "val_spectrum_a2b": (octave_energies(fake_b).mean() / octave_energies(held_out["b"]).mean()).item(),
            "val_spectrum_b2a": (octave_energies(fake_a).mean() / octave_energies(held_out["a"]).mean()).item(),
        }

    used = {"G_ab": model.networks.generator("a2b"), "G_ba": model.networks.generator("b2a")}
    assert model.validate() == pytest.approx(scores(used), rel=1e-3)
    if ema != "0":
        assert scores(used) != pytest.approx(scores(model.networks.modules), rel=1e-2)
    model.save_model(3, {})
    for direction, name in (("a2b", "G_ab"), ("b2a", "G_ba")):
        for key, value in load_model(tmp_path / "run")[1][direction].state_dict().items():
            assert torch.equal(value, used[name].state_dict()[key]), key


def test_gan_loss_is_used(build, domains):
    model, data = build(domains, "--gan-loss", "hinge"), batch()
    with torch.no_grad():
        real, fake = (
            model.networks.modules["D_a"](each) for each in (data["a"], model.networks.modules["G_ba"](data["b"]))
        )
    expected = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
    assert model.step(data)["loss_d_a"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_weights_of_the_losses_are_used(build, domains):
    losses = build(domains, "--lambda-cycle", "3", "--lambda-identity", "0.25").step(batch())
    cycle, identity = (losses[f"loss_{kind}_a"] + losses[f"loss_{kind}_b"] for kind in ("cycle", "identity"))
    expected = losses["loss_g_ab"] + losses["loss_g_ba"] + 3 * cycle + 3 * 0.25 * identity
    assert losses["loss_g"].item() == pytest.approx(expected.item(), rel=1e-5)

    found = []
    for lambda_gp in ("0", "5", "20"):
        model = build(domains, "--gan-loss", "wgangp", "--lambda-gp", lambda_gp)
        torch.manual_seed(0)
        model.step(batch())
        found.append(torch.cat([p.grad.flatten() for p in model.networks.modules["D_a"].parameters()]))
    none, some, more = found
    assert (some - none).abs().max() > 0.01
    torch.testing.assert_close(more - none, 4 * (some - none), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_warnings_of_the_monitor_are_not_repeated_after_a_resume(cyclegan, train, tmp_path, monkeypatch):
    monkeypatch.setattr("ganvas.training.monitors.WARM_UP", 0)
    monkeypatch.setattr("ganvas.training.monitors.UNTOUCHED", 9.0)  # every translation is its source
    assert train(tmp_path / "run")[0] == 0
    assert cyclegan("train", "--out", tmp_path / "run", "--resume", "--steps", 12)[0] == 0
    logged = [(line["step"], line["warning"]) for line in metrics(tmp_path / "run") if "warning" in line]
    warnings = [(step, text[:4]) for step, text in logged if "equals the input" in text]
    assert warnings == [(6, "a2b:"), (6, "b2a:")]


LONG = """
    --image-size 16 --num-blocks 1 --base-channels 4 --discriminator-channels 4 --patch-layers 1 --pool-size 10
    --threads 1 --save-every-steps 3 --log-every-steps 1
"""


@pytest.mark.slow
def test_two_processes_resume_with_their_own_pools(process, domains, tmp_path):
    """Each process trains D on its own fakes; a resumed run needs them to end with the same bytes."""

    def run(out, *options):
        pair = process("train", "--out", tmp_path / out, *options)
        _, err = pair.communicate(timeout=240)
        assert pair.returncode == 0, err

    small_pool = LONG.replace("--pool-size 10", "--pool-size 1").split()  # full, and so in use, after one step
    start = ["--data", domains, *small_pool, "--device", "cpu", "--devices", 2, "--save-every-steps", 3]
    run("unbroken", *start, "--steps", 6, "--decay-steps", 0)
    run("stopped", *start, "--steps", 3, "--decay-steps", 0)
    run("stopped", "--resume", "--steps", 6, "--decay-steps", 0)
    assert {file.name for file in (tmp_path / "stopped" / "checkpoints" / "step-00000003").glob("pool_*")} == {
        f"pool_{domain}{rank}.safetensors" for domain in "ab" for rank in ("", ".rank1")
    }
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("unbroken", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
