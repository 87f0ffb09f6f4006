"""What holds for the training of every module, from Python and from the command line."""

import errno
import importlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ganvas.training.trainer
from ganvas.data.decode import read_image
from ganvas.errors import UserError
from ganvas.files import sha256
from ganvas.models.folder import load_model
from ganvas.training import checkpoint as checkpoints
from ganvas.training.callbacks import StopTraining

MODULES = ("pix2pix", "cyclegan", "dcgan")
TRANSLATORS = ("pix2pix", "cyclegan")
SIZE = 16
LENGTH = {"steps": 6, "save_every_steps": 2, "log_every_steps": 2, "sample_every_steps": 3}
# One thread: such small networks are slower with more, and much slower when tests share the processor.
COMMON = {"base_channels": 4, "threads": 1, "device": "cpu", **LENGTH}
PATCHES = {"image_size": SIZE, "discriminator_channels": 4, "patch_layers": 1}
OPTIONS = {
    "pix2pix": {**COMMON, **PATCHES, "levels": 3},
    "cyclegan": {**COMMON, **PATCHES, "load_size": 18, "num_blocks": 1, "pool_size": 3},
    "dcgan": {**COMMON, "batch_size": 8, "latent_dim": 8},
}
NETWORKS = {"pix2pix": ("G", "D"), "cyclegan": ("G_ab", "G_ba", "D_a", "D_b"), "dcgan": ("G", "D")}
OTHER_FILES = {"pix2pix": (), "cyclegan": ("pool_a", "pool_b"), "dcgan": ("G_ema",)}
CRITERIA = {"pix2pix": ("val_l1", "val_swd"), "cyclegan": ("val_swd_a2b", "val_swd_b2a"), "dcgan": ("val_frechet",)}
LOSSES = {
    "pix2pix": {"loss_d", "loss_g", "loss_g_gan", "loss_g_l1"},
    "cyclegan": {"loss_g_ab", "loss_g_ba", "loss_cycle_a", "loss_identity_b", "loss_d_a", "loss_d_b"},
    "dcgan": {"loss_d", "loss_g_gan", "accuracy_real", "accuracy_fake"},
}
CARDS = {
    "pix2pix": ("Data: set. License of the data: not stated", "| val_l1 |", '"lambda_l1": 100.0'),
    "cyclegan": ("License of the data: not stated", "CycleGAN", '"lambda_cycle": 10.0'),
    "dcgan": ("Data: set; classes: class-0, class-1", "dcgan sample", '"label_smoothing": 0.0'),
}


def write_images(folder, count, width=SIZE):
    """Write images with some structure, different in each folder and the same in each session."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(list(folder.name.encode()))
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, width // 4, 3), dtype=np.uint8))
        coarse.resize((width, SIZE)).save(folder / f"{i}.png")


def write_data(name, root):
    for split, count in {"train": 6, "val": 2, "test": 2}.items():
        if name == "pix2pix":
            write_images(root / split, count, width=2 * SIZE)
        elif name == "cyclegan":
            for domain in "AB":
                write_images(root / f"{split}{domain}", count)
        elif split != "val":
            for label in range(2):
                write_images(root / split / f"class-{label}", count)
    return root


@dataclass(frozen=True)
class Case:
    """A module, a dataset that tests only read, and a finished run that tests only read."""

    name: str
    module: ModuleType
    data: Path
    trained: Path
    options: dict = field(default_factory=dict)

    def train(self, out, data=None, **options):
        return self.module.train(data or self.data, out=out, **{**self.options, **options})


def flags(options):
    """Return options as the command line takes them."""
    return [
        item
        for name, value in options.items()
        for item in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]


@pytest.fixture(scope="session")
def cases(tmp_path_factory, with_hidden_options):
    """All modules, each with a run by its command line."""
    found = {}
    for name, options in OPTIONS.items():
        root = tmp_path_factory.mktemp(name)
        case = Case(name, importlib.import_module(name), write_data(name, root / "set"), root / "run", options)
        line = ["train", "--data", str(case.data), "--out", str(case.trained), *flags(options)]
        assert importlib.import_module(f"{name}.__main__").main(with_hidden_options(name, line)) == 0
        found[name] = case
    return found


@pytest.fixture(params=MODULES)
def case(cases, request):
    return cases[request.param]


@pytest.fixture
def own_data(case, tmp_path):
    """A copy of the dataset that a test may change."""
    return Path(shutil.copytree(case.data, tmp_path / "own"))


def digest(run):
    return sha256(run / "model" / "model.safetensors")


def logged(run, name="lr"):
    """Return the lines of the log that contain a value."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if name in line]


def file_names(folder):
    return {path.name for path in folder.iterdir()}


def contents(run):
    """Return all files but those of the lock."""
    files = (path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".training"))
    return {path.relative_to(run): path.read_bytes() for path in files}


def test_files_of_a_run(case):
    run = case.trained
    assert {line["step"] for line in logged(run)} == {2, 3, 4, 6}  # every second one, and those with samples
    assert LOSSES[case.name] | {"lr", "images_per_second"} <= set(logged(run)[0])
    assert file_names(run / "samples") == {"step-00000003.png", "step-00000006.png"}
    assert list(run.glob("events.out.tfevents.*"))
    assert file_names(run / "model") == {"config.json", "model.safetensors", "README.md", "sample.png"}
    networks = NETWORKS[case.name]
    tensors = (*networks, *(f"{name}.adam" for name in networks), *OTHER_FILES[case.name])
    expected = {"checkpoint.json", *(f"{name}.safetensors" for name in tensors)}
    assert file_names(run / "checkpoints" / "step-00000006") == expected
    assert not [path for path in run.rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]


def test_the_monitor_sees_losses_weights_and_metrics(case):
    """At each record; WARM_UP steps have no figures of images."""
    checkpoint = checkpoints.load_newest_checkpoint(case.trained)
    history = checkpoint.state["model_state"]["monitor"]["history"]
    steps = {name: [step for step, _ in curve] for name, curve in history.items()}
    for name in (*LOSSES[case.name], *(f"weights_{network}" for network in NETWORKS[case.name])):
        assert steps[name] == [2, 3, 4, 6]
    assert any(name.startswith("val_") for name in steps)
    assert all(steps[name] == [2, 4, 6] for name in steps if name.startswith("val_"))
    assert not any(name.startswith(("diversity", "correlation")) for name in steps)


def test_model_card_names_licenses_and_shows_a_sample_but_no_path(case):
    card = (case.trained / "model" / "README.md").read_text()
    for text in ("License of the weights: not stated", "(sample.png)", *CARDS[case.name]):
        assert text in card
    assert str(case.data.parent) not in card + (case.trained / "model" / "config.json").read_text()
    sample = read_image(case.trained / "model" / "sample.png")
    assert sample.shape == read_image(case.trained / "samples" / "step-00000006.png").shape
    assert sample.std() > 1


@pytest.mark.parametrize("case", TRANSLATORS, indirect=True)
def test_names_from_the_dataset_are_escaped_in_the_model_card(case, own_data, tmp_path):
    names = {"domains": {"a": "<img src=x>", "b": "[b](http://x.example)"}, "license": "![l](//x)"}
    (own_data / "dataset.json").write_text(json.dumps(names))
    case.train(tmp_path / "run", data=own_data, steps=1)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    for text in (r"\<img src=x\>", r"\[b\](http\://x.example)", r"License of the data: !\[l\](//x)"):
        assert text in card
    assert card.count("<img") == card.count(r"\<img")
    assert card.count("[b") == card.count(r"\[b")


def test_python_and_the_command_line_train_the_same_model(case, tmp_path, capsys):
    result = case.train(tmp_path / "run")
    assert digest(tmp_path / "run") == digest(case.trained)
    assert (result.run, result.step, result.complete, result.exit_code) == (tmp_path / "run", 6, True, 0)
    assert set(CRITERIA[case.name]) <= set(result.metrics)
    if case.name == "dcgan":
        images = result.model.sample(2, seed=0)
        assert torch.equal(images, case.module.load(case.trained).sample(2, seed=0))
    else:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        again = case.module.resume(case.trained).model  # trains no further
        assert np.array_equal(result.model.translate(image), again.translate(image))
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.essential
def test_workers_and_logging_change_nothing_but_the_seed_does(case, tmp_path):
    case.train(tmp_path / "same", workers=2, log_every_steps=1, sample_every_steps=1)
    assert digest(tmp_path / "same") == digest(case.trained)
    case.train(tmp_path / "other", seed=1)
    assert digest(tmp_path / "other") != digest(case.trained)


def test_config_of_a_run_repeats_it_and_options_override_it(case, in_process, tmp_path):
    command = in_process(importlib.import_module(f"{case.name}.__main__").main)
    line = ("train", "--config", case.trained / "config.json", "--out")
    assert command(*line, tmp_path / "same")[0] == 0
    assert digest(tmp_path / "same") == digest(case.trained)
    assert command(*line, tmp_path / "short", "--steps", 2)[0] == 0
    assert json.loads((tmp_path / "short" / "config.json").read_text())["schedule"]["steps"] == 2


def test_data_in_a_relative_folder_is_found_from_another_folder(case, own_data, tmp_path, monkeypatch):
    monkeypatch.chdir(own_data)
    case.train("../run", data=".", callbacks=[Recorder(stop_at=2)])
    monkeypatch.chdir(tmp_path)
    case.module.resume("run")
    assert digest(tmp_path / "run") == digest(case.trained)


@pytest.mark.slow
@pytest.mark.essential
def test_best_model_has_the_least_product_of_its_criteria(case, tmp_path):
    case.train(tmp_path / "run", lr=0.01)
    criteria = CRITERIA[case.name]
    scores = {
        line["step"]: np.prod([line[name] for name in criteria]) for line in logged(tmp_path / "run", criteria[0])
    }
    assert scores.keys() == {2, 4, 6}
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["training"]["step"] == min(scores, key=scores.get)


@pytest.mark.parametrize("case", TRANSLATORS, indirect=True)
@pytest.mark.slow
@pytest.mark.essential
def test_better_mode_of_batch_norm_is_chosen_by_val(case, tmp_path, caplog):
    caplog.set_level("INFO")
    case.train(tmp_path / "run", norm="batch", batch_size=2, lr=0.01, keep_checkpoints=9)
    criteria = CRITERIA[case.name]
    for line in logged(tmp_path / "run", criteria[0]):
        products = {m: np.prod([line[f"{name}_{m}"] for name in criteria]) for m in ("running", "picture")}
        better = min(products, key=products.get)
        assert [line[name] for name in criteria] == [line[f"{name}_{better}"] for name in criteria]
        assert load_model(tmp_path / "run" / "checkpoints" / f"step-{line['step']:08d}")[0].statistics == better
        assert f"{criteria[1]}_{better} {line[criteria[1]]:.4f}" in caplog.text
    assert "Batch norm at inference:" in (tmp_path / "run" / "model" / "README.md").read_text()


class Recorder:
    """Records all calls; may stop the training at a step."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def on_train_start(self):
        self.calls.append(("start",))

    def on_log(self, step, metrics):
        self.calls.append(("log", step, sorted(metrics)))
        if step == self.stop_at:
            raise StopTraining

    def on_images(self, step, image):
        self.calls.append(("images", step, image.dtype, image.ndim))

    def on_checkpoint(self, step, path):
        self.calls.append(("checkpoint", step, path.name))

    def on_train_end(self, result):
        self.calls.append(("end", result.step, result.complete))


def test_callbacks_are_called_in_order(case, tmp_path):
    recorder = Recorder()
    case.train(tmp_path / "run", callbacks=[recorder])
    assert recorder.calls[0] == ("start",)
    assert recorder.calls[-1] == ("end", 6, True)
    assert [call[1:] for call in recorder.calls if call[0] == "images"] == [(step, np.uint8, 3) for step in (3, 6)]
    checkpoints = [call[1:] for call in recorder.calls if call[0] == "checkpoint"]
    assert checkpoints == [(step, f"step-{step:08d}") for step in (2, 4, 6)]
    assert [call[1] for call in recorder.calls if call[0] == "log" and "lr" in call[2]] == [2, 3, 4, 6]


@pytest.mark.parametrize("step", [2, 4])
def test_training_stopped_by_a_callback_resumes_to_the_same_bytes(case, tmp_path, step):
    result = case.train(tmp_path / "run", callbacks=[Recorder(stop_at=step)])
    assert (result.step, result.complete, result.exit_code) == (step, False, 0)
    resumed = case.module.resume(tmp_path / "run")
    assert (resumed.step, resumed.complete) == (6, True)
    assert digest(tmp_path / "run") == digest(case.trained)


def test_finished_run_resumes_without_change_or_with_more_steps(case, tmp_path):
    run = Path(shutil.copytree(case.trained, tmp_path / "run"))
    case.module.resume(run)
    assert digest(run) == digest(case.trained)
    case.module.resume(run, steps=8, log_every_steps=1)
    assert [line["step"] for line in logged(run)] == [2, 3, 4, 6, 7, 8]


@pytest.mark.parametrize("mode", ["running", "picture"])
@pytest.mark.parametrize("case", TRANSLATORS, indirect=True)
@pytest.mark.slow
@pytest.mark.essential
def test_resumed_run_draws_its_samples_in_the_last_mode_of_batch_norm(case, tmp_path, monkeypatch, mode):
    """Whatever the mode of the last validation: one of the two is not the mode of a new run."""

    def chosen(generators, score, criteria):
        return mode, score(mode)

    monkeypatch.setattr(ganvas.training.trainer, "compare_statistics", chosen)
    options = {"norm": "batch", "sample_every_steps": 1, "lr": 0.01, "decay_steps": 0}
    case.train(tmp_path / "unbroken", **options)
    case.train(tmp_path / "run", **{**options, "steps": 4})
    case.module.resume(tmp_path / "run", steps=6)
    unbroken, resumed = (contents(tmp_path / name / "samples") for name in ("unbroken", "run"))
    assert len(unbroken) == 6
    assert resumed == unbroken
    assert load_model(tmp_path / "run" / "checkpoints" / "step-00000006")[0].statistics == mode


@pytest.mark.slow
@pytest.mark.essential
def test_training_killed_at_random_instants_ends_with_the_same_bytes(case, killed_and_resumed, tmp_path):
    steps = 60 * int(os.environ.get("GANVAS_KILLS", "2"))
    options = case.options | {
        "steps": steps,
        "save_every_steps": 3,
        "log_every_steps": 1,
        "sample_every_steps": 30,
        "ema": 0.9,
    }
    # The largest state: labels; pools; lazy penalties, a running average and pairs of real and fake.
    options |= {"dcgan": {"conditional": True}, "cyclegan": {}, "pix2pix": {"preset": "best"}}[case.name]
    case.train(tmp_path / "unbroken", **options)
    arguments = ["train", "--data", case.data, *flags(options)]
    code, err = killed_and_resumed(case.name, arguments, tmp_path / "run", kills=2, longest=0.6)
    assert code == 0, err
    runs = [tmp_path / name for name in ("unbroken", "run")]
    assert digest(runs[0]) == digest(runs[1])
    clean, again = (
        [{name: line[name] for name in ("step", *LOSSES[case.name])} for line in logged(run)] for run in runs
    )
    assert again == clean
    tensors = [run / "checkpoints" / f"step-{steps:08d}" for run in runs]
    for name in file_names(tensors[0]) - {"checkpoint.json"}:
        assert sha256(tensors[0] / name) == sha256(tensors[1] / name), name


@pytest.mark.parametrize("case", TRANSLATORS, indirect=True)
def test_evaluate_returns_what_the_command_prints(case, in_process):
    command = in_process(importlib.import_module(f"{case.name}.__main__").main)
    code, out, err = command("evaluate", case.trained, "--data", case.data, "--json")
    assert code == 0, err
    assert case.module.evaluate(case.trained, data=case.data) == json.loads(out)


class OwnTranslator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.layer(x))


class OwnSampler(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3 * SIZE * SIZE)

    def forward(self, z, labels):
        return torch.tanh(self.layer(z)).unflatten(1, (3, SIZE, SIZE))


class OwnDiscriminator(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.layer = nn.Conv2d(channels, 1, 4, 2, 1)

    def forward(self, x, labels=None):
        return self.layer(x).mean(dim=(1, 2, 3))


def test_own_networks_are_trained_saved_and_resumed(case, tmp_path):
    kind = OwnSampler if case.name == "dcgan" else OwnTranslator
    own = {"generator": kind(), "discriminator": OwnDiscriminator(6 if case.name == "pix2pix" else 3)}
    before = own["generator"].layer.weight.detach().clone()
    result = case.train(tmp_path / "run", **own)
    load = case.module.load if case.name == "dcgan" else ganvas.load
    direction = {"direction": "a2b"} if case.name == "cyclegan" else {}
    with pytest.raises(UserError, match=rf"own class .*{kind.__name__}.*load\(path, generator="):
        load(tmp_path / "run", **direction)
    model = load(tmp_path / "run", generator=kind(), **direction)
    if case.name == "dcgan":
        assert torch.equal(model.sample(3, seed=0), result.model.sample(3, seed=0))
        weight = model.generator.layer.weight
    else:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        assert np.array_equal(model.translate(image), result.model.translate(image))
        weight = model.network.layer.weight
    assert not torch.equal(weight, before)
    assert case.module.resume(tmp_path / "run", steps=8, **{**own, "generator": kind()}).step == 8


def test_own_losses_count_with_their_weight(case, tmp_path):
    def brightness(source, output, target):
        return (output.mean() - target.mean()).abs()

    def twice(source, output, target):
        return 2 * brightness(source, output, target)

    digests = {}
    for name, losses in {
        "none": None,
        "zero": {"own": (0.0, brightness)},
        "double": {"own": (16.0, brightness)},
        "same": {"own": (8.0, twice)},
    }.items():
        case.train(tmp_path / name, losses=losses, steps=2)
        digests[name] = digest(tmp_path / name)
        assert bool(logged(tmp_path / name, "loss_g_own")) == (losses is not None)
    assert digests["none"] == digests["zero"] != digests["double"] == digests["same"]


def test_mistakes_are_one_message(case, cases, tmp_path):
    with pytest.raises(TypeError, match=r"no option 'step'\. Did you mean 'steps'"):
        case.train(tmp_path / "run", step=3)
    with pytest.raises(UserError, match="steps is 0"):
        case.train(tmp_path / "run", steps=0)
    with pytest.raises(TypeError, match="is not a callback"):
        case.train(tmp_path / "run", callbacks=[3])
    with pytest.raises(UserError, match=r"--lr \(was 0.0\d*, now 1.0\)"):
        case.module.resume(case.trained, lr=1.0)
    with pytest.raises(UserError, match="no such file"):
        case.module.resume(tmp_path / "nowhere")
    other = cases["dcgan" if case.name == "pix2pix" else "pix2pix"]
    with pytest.raises(UserError, match=f"is the config of a {other.name} run"):
        case.module.resume(other.trained)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("left", ["checkpoints", "model", "samples", "metrics.jsonl", "config.json", "data.json"])
def test_nothing_of_a_run_is_overwritten(case, tmp_path, left):
    run, original = tmp_path / "run", case.trained / left
    run.mkdir()
    shutil.copytree(original, run / left) if original.is_dir() else shutil.copy(original, run / left)
    before = contents(run)
    with pytest.raises(UserError, match=rf"holds a run already \({left}\).*--resume.*--out"):
        case.train(run)
    assert contents(run) == before


def test_outputs_that_cannot_be_written(case, tmp_path):
    (tmp_path / "file").write_text("kept")
    places = {tmp_path / "file": "is a file", tmp_path / "file" / "run": "cannot be written"}
    if os.name == "posix":
        places[Path("/proc/run")] = "cannot be written"
    for place, message in places.items():
        with pytest.raises(UserError, match=message):
            case.train(place)
    assert (tmp_path / "file").read_text() == "kept"


def test_full_disk_while_a_checkpoint_is_written_leaves_the_last_one(case, tmp_path, monkeypatch):
    save = checkpoints.save_tensors

    def full(path, tensors):
        if "00000004" in str(path) and path.name.startswith("D"):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_tensors", full)
        with pytest.raises(UserError, match=r"step-00000004.*No space left on device"):
            case.train(tmp_path / "run")
    assert file_names(tmp_path / "run" / "checkpoints") == {"step-00000002"}
    case.module.resume(tmp_path / "run")
    assert digest(tmp_path / "run") == digest(case.trained)


def training_image(data):
    return sorted(data.glob("train*/**/*.png"))[0]


class TestDataOfAResumedRun:
    @pytest.fixture
    def run(self, case, own_data, tmp_path):
        case.train(tmp_path / "run", data=own_data, callbacks=[Recorder(stop_at=2)])
        return tmp_path / "run"

    def test_moved_data_is_named_once(self, case, run, own_data, tmp_path, caplog):
        own_data.rename(tmp_path / "moved")
        with pytest.raises(UserError, match="--data"):
            case.module.resume(run)
        case.module.resume(run, data=tmp_path / "moved")
        case.module.resume(run)
        assert "changed since" not in caplog.text
        assert digest(run) == digest(case.trained)

    def test_missing_images_are_refused(self, case, run, own_data):
        image = training_image(own_data)
        image.unlink()
        before = contents(run)
        with pytest.raises(UserError, match=f"missing: {image.name}|11 images"):
            case.module.resume(run)
        assert contents(run) == before

    def test_other_data_in_another_folder_is_refused(self, case, run, own_data, tmp_path):
        path = training_image(own_data)
        Image.fromarray(np.zeros_like(read_image(path))).save(path)
        own_data.rename(tmp_path / "moved")
        before = contents(run)
        with pytest.raises(UserError, match="moved: is not the data that"):
            case.module.resume(run, data=tmp_path / "moved")
        assert contents(run) == before

    def test_changed_images_cause_one_warning(self, case, run, own_data, caplog):
        path = training_image(own_data)
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path, compress_level=0)
        for _ in range(2):
            case.module.resume(run)
        assert caplog.text.count("changed since") == 1
