"""Every command that takes a MODEL takes a run, a checkpoint and a model folder, and uses the weights that they mean.

What is expected is read from the files by safetensors alone. The run's best model and the checkpoint differ in weights
and in the mode of batch norm.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ganvas
from cyclegan.__main__ import main as cyclegan
from dcgan.__main__ import main as dcgan
from dcgan.model import DigitModelConfig, Sampler, build
from ganvas.inference.export.program import Differences
from ganvas.inference.run_data import data_of_run
from ganvas.inference.tiling.plan import Tiling
from ganvas.inference.translator import Translator
from ganvas.models.folder import NetworkSpec, build_generator
from ganvas.nn.layers import BatchNorm2d
from ganvas.options import from_json
from pix2pix.__main__ import main as pix2pix

pytestmark = pytest.mark.slow

COMMANDS = {"pix2pix": pix2pix, "cyclegan": cyclegan, "dcgan": dcgan}
FORMS = ("run", "checkpoint", "model")
TRAINING = "--threads 1 --save-every-steps 2 --steps 6 --batch-size 2 --lr 0.01 --precision fp32 --device cpu"
TRANSLATOR = "--image-size 16 --base-channels 4 --discriminator-channels 4 --patch-layers 1 --norm batch"
OPTIONS = {
    "pix2pix": f"{TRANSLATOR} --levels 3 --direction b2a",
    "cyclegan": f"{TRANSLATOR} --num-blocks 1 --ema 0.5",
    "dcgan": "--base-channels 4 --latent-dim 8 --ema 0.5",
}
# What checkpoints call the networks of the model folder.
NETWORKS = {
    "pix2pix": {"b2a": "G"},
    "cyclegan": {"a2b": "G_ab_ema", "b2a": "G_ba_ema"},
    "dcgan": {"generator": "G_ema"},
}


@dataclass(frozen=True)
class Run:
    """A finished run, the data it learned from, and the step of a checkpoint that is not its best."""

    module: str
    folder: Path
    data: Path
    step: int

    def path(self, form):
        checkpoint = self.folder / "checkpoints" / f"step-{self.step:08d}"
        return {"run": self.folder, "checkpoint": checkpoint, "model": self.folder / "model"}[form]

    def expected(self, form):
        """Build the networks of a form from its files, by direction; and their mode of batch norm."""
        config = json.loads((self.folder / "model" / "config.json").read_text())
        mode = config.get("statistics", "running")
        if form == "checkpoint":
            info = json.loads((self.path(form) / "checkpoint.json").read_text())
            mode = info["state"]["model_state"]["statistics"] or "running"  # dcgan has none
            weights = {}
            for name, file in NETWORKS[self.module].items():
                tensors = load_file(self.path(form) / f"{file}.safetensors")
                weights[name] = {key.removeprefix("network."): t for key, t in tensors.items() if key != "updates"}
        else:
            tensors = load_file(self.folder / "model" / "model.safetensors")
            weights = {
                name: {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
                for name in NETWORKS[self.module]
            }
        networks = {}
        for name, tensors in weights.items():
            if self.module == "dcgan":
                networks[name], _ = build(from_json(DigitModelConfig, config, "config"))
            else:
                networks[name] = build_generator(NetworkSpec(**config["networks"][name]))
            networks[name].load_state_dict(tensors)
            for module in networks[name].eval().modules():
                if isinstance(module, BatchNorm2d):
                    module.statistics = mode
        return networks


def write_images(folder, count, width=16):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(
        list(f"{folder.parent.name}/{folder.name}".encode())
    )  # the same in any temporary folder
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (16, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def write_data(module, root):
    splits = {"train": 4, "val": 2, "test": 2}
    if module == "pix2pix":
        for split, count in splits.items():
            write_images(root / split, count, width=32)
    elif module == "cyclegan":
        for split, count in splits.items():
            for domain in "AB":
                write_images(root / f"{split}{domain}", count)
    else:
        for split in ("train", "test"):
            for label in range(2):
                write_images(root / split / f"class-{label}", 25)


def train(module, root, with_hidden_options):
    write_data(module, root / "data")
    line = ["train", "--data", root / "data", "--out", root / "run", *TRAINING.split(), *OPTIONS[module].split()]
    assert COMMANDS[module](with_hidden_options(module, [*map(str, line), "--keep-checkpoints", "3"])) == 0
    file = root / "run" / "model" / "config.json"
    config = json.loads(file.read_text())
    run = Run(module, root / "run", root / "data", next(step for step in (2, 4) if step != config["training"]["step"]))
    if "statistics" in config:  # the two differ in their mode, too
        chosen = json.loads((run.path("checkpoint") / "checkpoint.json").read_text())["state"]["model_state"]
        config["statistics"] = {"running": "picture", "picture": "running"}[chosen["statistics"]]
        file.write_text(json.dumps(config))
    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory, with_hidden_options):
    """A finished run of each module that tests only read."""
    threads = torch.get_num_threads()
    yield {module: train(module, tmp_path_factory.mktemp(module), with_hidden_options) for module in COMMANDS}
    torch.set_num_threads(threads)


@pytest.fixture
def used(monkeypatch):
    """Record every translator and sampler that is made: what commands compute with."""
    found = []
    for kind in (Translator, Sampler):

        def recorded(self, *arguments, original=kind.__init__, **options):
            original(self, *arguments, **options)
            found.append(self)

        monkeypatch.setattr(kind, "__init__", recorded)
    return found


@torch.no_grad()
def outputs(module, network):
    """Run a network on fixed noise or images, in the modes that its layers are in."""
    rng = torch.Generator().manual_seed(0)
    if module == "dcgan":
        return network(torch.randn(3, 8, generator=rng), None)
    return network(torch.rand(3, 3, 16, 16, generator=rng) * 2 - 1)


def check_used(run, form, used, directions=None):
    """Check that something was computed with, and only with the networks that a form means."""
    expected = run.expected(form)
    assert {getattr(each, "direction", "generator") for each in used} == set(directions or NETWORKS[run.module])
    for each in used:
        network, right = (
            (each.network, expected[each.direction])
            if isinstance(each, Translator)
            else (each.generator, expected["generator"])
        )
        torch.testing.assert_close(outputs(run.module, network), outputs(run.module, right), rtol=1e-5, atol=1e-5)


def no_export(what, path):
    path.write_bytes(b"")
    return Differences(0.0, 0.0)


def way(module):
    return {"pix2pix": "b2a", "cyclegan": "a2b"}[module]


def test_the_forms_mean_different_networks(runs):
    """Else the tests below could not fail."""
    for module, run in runs.items():
        for name in NETWORKS[module]:
            best, other = (outputs(module, run.expected(form)[name]) for form in ("run", "checkpoint"))
            assert (best - other).abs().max() > 1e-2, (module, name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("module", ["pix2pix", "cyclegan"])
class TestTranslators:
    def test_load(self, runs, used, module, form):
        for direction in NETWORKS[module]:
            ganvas.load(runs[module].path(form), direction=direction)
        check_used(runs[module], form, used)

    def test_translate(self, runs, used, in_process, tmp_path, module, form):
        run = runs[module]
        source = next(run.data.glob("test*/*.png"))
        direction = ("--direction", "a2b") if module == "cyclegan" else ()
        code, _, err = in_process(COMMANDS[module])(
            "translate", run.path(form), source, tmp_path / "out.png", "--device", "cpu", *direction
        )
        assert code == 0, err
        assert (tmp_path / "out.png").is_file()
        check_used(run, form, used, [way(module)])

    def test_evaluate(self, runs, used, in_process, module, form):
        run = runs[module]
        code, out, err = in_process(COMMANDS[module])(
            "evaluate", run.path(form), "--data", run.data, "--json", "--device", "cpu"
        )
        assert code == 0, err
        assert json.loads(out)["metrics"]
        check_used(run, form, used)

    def test_export(self, runs, used, in_process, tmp_path, monkeypatch, module, form):
        monkeypatch.setattr("ganvas.inference.export.program._export_program", no_export)
        run = runs[module]
        code, out, err = in_process(COMMANDS[module])(
            "export", run.path(form), tmp_path / "out.pt2", "--direction", way(module), "--json"
        )
        assert code == 0, err
        assert json.loads(out)["real images"] > 0  # of the run's dataset
        check_used(run, form, used, [way(module)])

    def test_serve(self, runs, used, tmp_path, monkeypatch, module, form):
        pytest.importorskip("gradio", reason="gradio is not installed (extra web)")
        from ganvas.inference.web import page

        found = []
        monkeypatch.setattr(page, "build_page", lambda *arguments: found.append(arguments))
        options = page.PageOptions(runs[module].path(form), None, "", 100, 100, Tiling(64, 8), "cpu")
        page.load_page(options, None, tmp_path)
        check_used(runs[module], form, used)
        assert found[0][3]  # examples of the run's dataset


@pytest.mark.parametrize("form", FORMS)
class TestSampler:
    def test_sample(self, runs, used, in_process, tmp_path, form):
        run = runs["dcgan"]
        code, _, err = in_process(dcgan)("sample", run.path(form), tmp_path / "out.png", "--device", "cpu")
        assert code == 0, err
        assert (tmp_path / "out.png").is_file()
        check_used(run, form, used)

    def test_evaluate(self, runs, used, in_process, monkeypatch, form):
        run, measured = runs["dcgan"], []
        nothing = {"pictures": 50, "compared": 50, "classifier": {}, "metrics": {}, "ceiling": {}}
        monkeypatch.setattr("dcgan.evaluation.cached_classifier", lambda train, test: None)
        monkeypatch.setattr("dcgan.evaluation.measure", lambda fake, *others: measured.append(fake) or nothing)
        code, out, err = in_process(dcgan)("evaluate", run.path(form), "--samples", 50, "--json", "--device", "cpu")
        assert code == 0, err
        assert json.loads(out)["data"] == str(run.data)  # as the run's config.json says
        assert len(measured[0]) == 50
        check_used(run, form, used)

    def test_export(self, runs, used, in_process, tmp_path, monkeypatch, form):
        monkeypatch.setattr("ganvas.inference.export.program._export_program", no_export)
        code, _, err = in_process(dcgan)("export", runs["dcgan"].path(form), tmp_path / "out.pt2")
        assert code == 0, err
        check_used(runs["dcgan"], form, used)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("module", COMMANDS)
def test_push_shares_the_runs_model_and_refuses_a_checkpoint(runs, in_process, monkeypatch, module, form):
    pushed = {}

    def upload(name, folder, files, private):
        pushed.update({file: (folder / file).read_bytes() for file in files if (folder / file).exists()})
        return "address"

    monkeypatch.setattr("ganvas.models.push.upload", upload)
    run = runs[module]
    code, _, err = in_process(COMMANDS[module])("push", run.path(form), "me/model")
    if form == "checkpoint":
        assert (code, pushed) == (2, {})
        assert "is a checkpoint" in err
    else:
        assert code == 0, err
        assert pushed["model.safetensors"] == (run.folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("module", COMMANDS)
def test_the_data_of_the_run_is_found(runs, module, form):
    assert data_of_run(runs[module].path(form)) == runs[module].data


@pytest.mark.parametrize("name", [5, "", "x" * 3000, ["x"], None])
def test_a_name_that_no_folder_can_have_is_no_dataset(tmp_path, name):
    (tmp_path / "model").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "model" / file).touch()
    (tmp_path / "config.json").write_text(json.dumps({"data": {"data": name}}))
    assert data_of_run(tmp_path) is None
