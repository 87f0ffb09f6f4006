"""Training through the real command line: what a run leaves, exact repeats and resumes, pools included."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch

import ganvas
from cyclegan import trainer
from cyclegan.__main__ import Train
from cyclegan.config import CycleGanConfig, DataConfig, preset
from ganvas.cli.train import parse_train
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.errors import UserError
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


def test_what_a_run_leaves(trained):
    steps = [line for line in metrics(trained) if "loss_g" in line]
    assert {"loss_g_ab", "loss_g_ba", "loss_cycle_a", "loss_identity_b", "loss_d_a", "loss_d_b", "lr"} <= set(steps[0])
    assert [line["step"] for line in metrics(trained) if "correlation_identity_a2b" in line] == [3, 6]
    assert [path.name for path in sorted((trained / "samples").iterdir())] == ["step-00000003.png", "step-00000006.png"]
    names = {path.name for path in (trained / "checkpoints" / "step-00000006").iterdir()}
    networks = ("G_ab", "G_ba", "D_a", "D_b")
    assert names == {
        *(f"{name}.safetensors" for name in (*networks, "pool_a", "pool_b")),
        *(f"{name}.adam.safetensors" for name in networks),
        "checkpoint.json",
    }
    assert not [path for path in trained.rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]


def test_the_model_translates_both_ways(trained):
    config, generators = load_model(trained)
    assert config.kind == "cyclegan"
    assert generators.keys() == {"a2b", "b2a"}
    picture = read_image(next((trained / "samples").iterdir()))[:30, :41]
    for way in ("a2b", "b2a"):
        assert ganvas.load(trained, direction=way).translate(picture).shape == picture.shape
    with pytest.raises(UserError, match="choose a direction"):
        ganvas.load(trained)


def test_the_card_says_data_licence_settings_and_shows_a_sample(trained, domains):
    card = (trained / "model" / "README.md").read_text()
    for said in ("License of the data: not stated", "License of the weights: not stated", "(sample.png)"):
        assert said in card
    assert '"lambda_cycle": 10.0' in card
    assert str(domains.parent) not in card
    assert read_image(trained / "model" / "sample.png").shape == read_image(next((trained / "samples").iterdir())).shape


def test_samples_show_both_directions_and_the_way_back(trained):
    sheet = read_image(trained / "samples" / "step-00000006.png")
    assert sheet.shape[0] > 5 * 96  # three images of a, two of b, enlarged
    assert sheet.shape[1] > 4 * 96  # source, translated, cycled back, identity


def test_names_from_the_dataset_are_literal_text_in_the_card(train, own_domains, tmp_path):
    names = {"domains": {"a": "<img src=x>", "b": "[b](http://x.example)"}, "licence": "![l](//x)"}
    (own_domains / "dataset.json").write_text(json.dumps(names))
    code, _, err = train(tmp_path / "run", "--steps", 1, data=own_domains)
    assert code == 0, err
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert r"\<img src=x\>" in card
    assert r"\[b\](http\://x.example)" in card
    assert r"License of the data: !\[l\](//x)" in card
    assert card.count("<img") == card.count(r"\<img")
    assert card.count("[b") == card.count(r"\[b")


@pytest.mark.slow
def test_the_data_set_may_be_the_folder_that_one_stands_in(train, trained, domains, tmp_path, monkeypatch):
    monkeypatch.chdir(domains)
    code, _, err = train(tmp_path / "run", data=".")
    assert code == 0, err
    assert model_digest(tmp_path / "run") == model_digest(trained)
    assert load_model(tmp_path / "run")[0].training["data"] == domains.name


@pytest.mark.slow
@pytest.mark.essential
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(train, trained, tmp_path):
    assert train(tmp_path / "same", "--workers", 2, "--log-every-steps", 1)[0] == 0
    assert model_digest(tmp_path / "same") == model_digest(trained)
    assert train(tmp_path / "other", "--seed", 1)[0] == 0
    assert model_digest(tmp_path / "other") != model_digest(trained)


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
def test_each_option_trains(train, tmp_path, options):
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
def test_passes_are_joined_only_where_the_result_stays_the_same(
    train, tmp_path, monkeypatch, options, in_generators, in_discriminators
):
    """And not with --activation-checkpointing, where a joined pass would keep the activations of two images."""
    seen = {ResNetGenerator: set(), PatchDiscriminator: set()}
    for kind, sizes in seen.items():

        def recorded(network, pictures, forward=kind.forward, sizes=sizes):
            sizes.add(len(pictures))
            return forward(network, pictures)

        monkeypatch.setattr(kind, "forward", recorded)
    code, _, err = train(tmp_path / "run", *options.split(), "--steps", 1)
    assert code == 0, err
    assert seen == {ResNetGenerator: in_generators, PatchDiscriminator: in_discriminators}


@pytest.mark.slow
def test_where_torch_cannot_compile_training_goes_on_with_one_warning(train, trained, tmp_path, monkeypatch):
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
def test_compiled_networks_learn_alike_and_are_saved_under_their_own_names(train, trained, tmp_path, monkeypatch):
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
    for way, folder, channels in (("a2b", "testA", 3), ("b2a", "testB", 1)):
        out = tmp_path / way
        assert cyclegan("translate", tmp_path / "run", own_domains / folder, out, "--direction", way)[0] == 0
        assert {read_image(path).shape[2] for path in out.iterdir()} == {channels}


@pytest.mark.slow
@pytest.mark.essential
def test_the_best_model_is_kept_by_val(train, domains_with_truth, tmp_path):
    code, _, err = train(tmp_path / "run", data=domains_with_truth)
    assert code == 0, err
    scores = {
        line["step"]: line["val_swd_a2b"] * line["val_swd_b2a"]
        for line in metrics(tmp_path / "run")
        if "val_swd_a2b" in line
    }
    assert scores.keys() == {2, 4, 6}
    assert load_model(tmp_path / "run")[0].training["step"] == min(scores, key=scores.get)


@pytest.mark.slow
@pytest.mark.essential
def test_the_better_mode_of_batch_norm_is_chosen_by_val_and_recorded(train, domains_with_truth, tmp_path):
    options = ("--norm", "batch", "--batch-size", 2, "--lr", 0.01)
    code, _, err = train(tmp_path / "run", *options, data=domains_with_truth)
    assert code == 0, err
    lines = {line["step"]: line for line in metrics(tmp_path / "run") if "val_swd_a2b" in line}
    for step, line in lines.items():
        products = {mode: line[f"val_swd_a2b_{mode}"] * line[f"val_swd_b2a_{mode}"] for mode in ("running", "picture")}
        better = min(products, key=products.get)
        assert line["val_swd_a2b"] == line[f"val_swd_a2b_{better}"]
        checkpoint = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        if checkpoint.is_dir():
            assert load_model(checkpoint)[0].statistics == better
        if step == load_model(tmp_path / "run")[0].training["step"]:
            assert load_model(tmp_path / "run")[0].statistics == better
    assert "Batch norm at inference:" in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        (["--norm", "batch"], "picture"),  # what the training normalized by
        (["--norm", "batch", "--batch-size", "2"], "running"),
        (["--norm", "batch", "--batch-size", "2", "--grad-accum-steps", "2"], "picture"),
        ([], "running"),  # instance norm has no modes
    ],
)
@pytest.mark.slow
def test_without_val_the_mode_is_that_of_the_training(train, domains, tmp_path, options, mode):
    code, _, err = train(tmp_path / "run", *options, "--steps", 1)
    assert code == 0, err
    assert load_model(tmp_path / "run")[0].statistics == mode


@pytest.mark.parametrize("mode", ["running", "picture"])
@pytest.mark.slow
@pytest.mark.essential
def test_a_resumed_run_draws_the_samples_of_one_that_never_stopped(
    cyclegan, train, domains_with_truth, tmp_path, monkeypatch, mode
):
    score, better = trainer._Task.score, {"val_swd_a2b": 0.0}
    monkeypatch.setattr(
        trainer._Task, "score", lambda self, asked: score(self, asked) | (better if asked == mode else {})
    )
    options = ["--norm", "batch", "--sample-every-steps", 1, "--lr", 0.01, "--steps", 6, "--decay-steps", 0]
    assert train(tmp_path / "unbroken", *options, data=domains_with_truth)[0] == 0
    assert train(tmp_path / "run", *options, "--steps", 4, data=domains_with_truth)[0] == 0
    code, _, err = cyclegan("train", "--out", tmp_path / "run", "--resume", "--steps", 6)
    assert code == 0, err
    whole, resumed = (
        {path.name: path.read_bytes() for path in (tmp_path / run / "samples").iterdir()} for run in ("unbroken", "run")
    )
    assert len(whole) == 6
    assert resumed == whole


@pytest.fixture
def build(tmp_path, with_hidden_options):
    """Build the model as a training does, without a step."""

    def model(data, *options):
        line = ["train", "--data", str(data), "--out", str(tmp_path / "run"), *LONG.split(), "--device", "cpu"]
        _, *line = with_hidden_options("cyclegan", [*line, "--precision", "fp32", *options])
        config = parse_train("cyclegan", Train, CycleGanConfig, (), preset, line).options
        config = trainer.with_channels(config)[0]
        return trainer.build_training(config, tmp_path / "run", make_fabric(config.hardware)).trainer

    return model


def batch(seed=0):
    chance = torch.Generator().manual_seed(seed)
    return {domain: torch.rand(2, 3, 16, 16, generator=chance) * 2 - 1 for domain in "ab"}


@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.slow
@pytest.mark.essential
def test_what_is_judged_and_shared_is_the_average_where_one_is_kept(build, domains_with_truth, tmp_path, ema):
    model = build(domains_with_truth, "--ema", ema, "--lr", "0.01")
    for seed in range(3):
        model.step(batch(seed))
    config = replace(CycleGanConfig(), data=DataConfig(data=domains_with_truth, image_size=16))
    dataset = trainer.open_split(config, "val", None, augment=False)
    held_out = {domain: torch.stack([dataset.tensor(domain, i) for i in range(2)]) for domain in "ab"}

    @torch.no_grad()
    def scores(G):
        fake_b, fake_a = G["G_ab"](held_out["a"]), G["G_ba"](held_out["b"])
        return {
            "val_cycle_a": (G["G_ba"](fake_b) - held_out["a"]).abs().mean().item(),
            "val_cycle_b": (G["G_ab"](fake_a) - held_out["b"]).abs().mean().item(),
            "val_swd_a2b": sliced_wasserstein(fake_b, held_out["b"]).mean,
            "val_swd_b2a": sliced_wasserstein(fake_a, held_out["a"]).mean,
        }

    shared = {"G_ab": model.networks.generator("a2b"), "G_ba": model.networks.generator("b2a")}
    assert model.validate() == pytest.approx(scores(shared), rel=1e-3)
    if ema != "0":
        assert scores(shared) != pytest.approx(scores(model.networks.modules), rel=1e-2)
    model.save_model(3, {})
    for way, name in (("a2b", "G_ab"), ("b2a", "G_ba")):
        for key, value in load_model(tmp_path / "run")[1][way].state_dict().items():
            assert torch.equal(value, shared[name].state_dict()[key]), key


def test_the_adversarial_loss_is_the_one_asked_for(build, domains):
    model, data = build(domains, "--gan-loss", "hinge"), batch()
    with torch.no_grad():
        real, fake = (
            model.networks.modules["D_a"](each) for each in (data["a"], model.networks.modules["G_ba"](data["b"]))
        )
    expected = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
    assert model.step(data)["loss_d_a"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_weights_of_the_losses_are_those_asked_for(build, domains):
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
def test_what_the_watch_has_said_is_not_said_again_after_a_resume(cyclegan, train, tmp_path, monkeypatch):
    monkeypatch.setattr("cyclegan.monitors.UNTOUCHED", 9.0)  # every translation is its source
    assert train(tmp_path / "run")[0] == 0
    assert cyclegan("train", "--out", tmp_path / "run", "--resume", "--steps", 12)[0] == 0
    said = [(line["step"], line["warning"]) for line in metrics(tmp_path / "run") if "warning" in line]
    warnings = [(step, text[:4]) for step, text in said if "equals the input" in text]
    assert warnings == [(6, "a2b:"), (6, "b2a:")]


LONG = """
    --image-size 16 --num-blocks 1 --base-channels 4 --discriminator-channels 4 --patch-layers 1 --pool-size 10
    --threads 1 --steps 100 --save-every-steps 3 --log-every-steps 1
"""


@pytest.mark.slow
@pytest.mark.essential
def test_killed_at_random_instants_it_ends_with_the_same_bytes(cyclegan, killed_and_resumed, domains, tmp_path):
    arguments, run = ["train", "--data", domains, *LONG.split()], tmp_path / "killed"
    code, _, err = cyclegan(*arguments, "--out", tmp_path / "unbroken")
    assert code == 0, err
    code, err = killed_and_resumed("cyclegan", arguments, run, kills=3, longest=0.7)
    assert code == 0, err
    assert model_digest(run) == model_digest(tmp_path / "unbroken")
    last = [tmp_path / name / "checkpoints" / "step-00000100" for name in ("unbroken", "killed")]
    for name in ("pool_a", "pool_b", "D_a", "D_b.adam"):
        assert len({sha256(folder / f"{name}.safetensors") for folder in last}) == 1, name


@pytest.mark.slow
def test_two_processes_go_on_with_their_own_pools(process, domains, tmp_path):
    """Each process shows D fakes of its own: a resumed run has to find them again, and ends with the same bytes."""

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
