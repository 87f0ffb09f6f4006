import json

import pytest
import torch

from ganvas.errors import UserError
from ganvas.modelfile import (
    ModelConfig,
    NetworkSpec,
    Preprocessing,
    build_generator,
    find_model,
    load_model,
    save_model,
)
from ganvas.training.checkpoint import Checkpoint, save_checkpoint
from ganvas.training.ema import Ema

SPEC = NetworkSpec("unet", {"base_channels": 4, "num_levels": 2}, "map", "terrain")
CONFIG = ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 32, True), "picture", {"step": 5})


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    generator = build_generator(SPEC)
    save_model(tmp_path / "run" / "model", CONFIG, {"a2b": generator}, "# card\n")
    return tmp_path / "run", generator


def test_a_model_comes_back_as_it_was(saved):
    run, generator = saved
    for path in (run, run / "model"):
        config, networks = load_model(path)
        assert config.networks == CONFIG.networks
        assert (config.statistics, config.training) == ("picture", {"step": 5})
        assert not networks["a2b"].training
        for name, value in generator.state_dict().items():
            assert torch.equal(networks["a2b"].state_dict()[name], value), name
    assert (run / "model" / "README.md").read_text() == "# card\n"


@pytest.mark.parametrize("averaged", [False, True])
def test_a_checkpoint_is_its_own_step_in_its_own_mode_not_the_best(saved, averaged):
    run, _ = saved
    networks = {"G": build_generator(SPEC), "D": torch.nn.Linear(1, 1)}
    if averaged:
        networks["G_ema"] = Ema(build_generator(SPEC), 0.9)
    tensors = {name: net.state_dict() for name, net in networks.items()}
    state = {"model_state": {"networks": {"a2b": "G_ema" if averaged else "G"}, "statistics": "running"}}
    folder = save_checkpoint(run, Checkpoint(7, tensors, state))
    config, found = load_model(folder)
    assert (config.training, config.statistics) == ({"step": 7}, "running")
    assert load_model(run)[0].statistics == "picture"
    expected = networks["G_ema"].network if averaged else networks["G"]
    for name, value in expected.state_dict().items():
        assert torch.equal(found["a2b"].state_dict()[name], value), name
    (folder / ("G_ema.safetensors" if averaged else "G.safetensors")).write_bytes(b"cut")
    with pytest.raises(UserError, match="is missing or damaged"):
        load_model(folder)


def test_a_checkpoint_is_found_from_within_and_under_another_name(saved, monkeypatch):
    run, generator = saved
    state = {"model_state": {"networks": {"a2b": "G"}, "statistics": "running"}}
    folder = save_checkpoint(run, Checkpoint(7, {"G": generator.state_dict()}, state))
    monkeypatch.chdir(folder)
    assert load_model(".")[0].training == {"step": 7}
    renamed = folder.rename(folder.with_name("kept"))
    assert load_model(renamed)[0].training == {"step": 7}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({}, "checkpoint.json: model_state"),
        ({"model_state": {"networks": {"b2a": "G"}, "statistics": "running"}}, "a2b.safetensors: is missing"),
        ({"model_state": {"networks": {"a2b": "G_ema"}, "statistics": "running"}}, "G_ema.safetensors: is missing"),
        ({"model_state": {"networks": {"a2b": "G"}, "statistics": "median"}}, "statistics is 'median'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(saved, state, said):
    run, generator = saved
    folder = save_checkpoint(run, Checkpoint(7, {"G": generator.state_dict()}, state))
    with pytest.raises(UserError, match=said):
        load_model(folder)


def test_a_checkpoint_without_its_run_says_what_is_missing(saved, tmp_path):
    run, generator = saved
    folder = save_checkpoint(run, Checkpoint(7, {"G": generator.state_dict()}, {}))
    moved = folder.rename(tmp_path / "step-00000007")
    with pytest.raises(UserError, match=r"step-00000007: its networks are described by .*model, which does not exist"):
        load_model(moved)


def test_both_directions_in_one_file(tmp_path):
    other = NetworkSpec("resnet", {"base_channels": 2, "num_blocks": 1}, "terrain", "map")
    config = ModelConfig("cyclegan", {"a2b": SPEC, "b2a": other}, Preprocessing(3, 3, 32, True))
    networks = {"a2b": build_generator(SPEC), "b2a": build_generator(other)}
    save_model(tmp_path, config, networks, "")
    assert {name: type(net) for name, net in load_model(tmp_path)[1].items()} == {
        n: type(v) for n, v in networks.items()
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"kind": "pix3pix"}, "kind is 'pix3pix'"),
        ({"wings": 2}, "wings: there is no such option"),
        ({"weights_sha256": "0" * 64}, "is damaged"),
        ({"networks": {"a2b": {**vars(SPEC), "architecture": "transformer"}}}, "architecture is 'transformer'"),
        ({"networks": {"a2b": {**vars(SPEC), "arguments": {"num_levels": 0}}}}, "num_levels is 0"),
        (
            {"networks": {"a2b": {**vars(SPEC), "arguments": {"base_channels": 8, "num_levels": 2}}}},
            "another architecture",
        ),
        ({"networks": {"b2a": vars(SPEC)}}, "another architecture"),
    ],
)
def test_what_does_not_fit_is_refused(saved, change, said):
    file = saved[0] / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=said):
        load_model(saved[0])


def test_weights_that_are_a_git_lfs_pointer_are_named_so(saved):
    (saved[0] / "model" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(UserError, match=r"model\.safetensors: is a Git LFS pointer, .* Run git lfs pull"):
        load_model(saved[0])


@pytest.mark.parametrize(("a", "b"), [(1, 3), (3, 1)])
def test_pictures_of_other_channels_than_the_networks_are_refused(saved, a, b):
    file = saved[0] / "model" / "config.json"
    how = vars(Preprocessing(a, b, 32, True))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"preprocessing": how}))
    with pytest.raises(UserError, match=rf"config\.json: .*a2b translates 3 to 3 channels, .* have {a} and {b}\."):
        load_model(saved[0])


@pytest.mark.parametrize(("back", "fits"), [((1, 3), True), ((3, 3), False), ((3, 1), False)])
def test_the_way_back_has_the_channels_of_the_way_there_reversed(tmp_path, back, fits):
    arguments = [dict(zip(("in_channels", "out_channels"), both, strict=True)) for both in ((3, 1), back)]
    specs = {
        way: NetworkSpec("resnet", {"base_channels": 2, "num_blocks": 1, **channels}, "A", "B")
        for way, channels in zip(("a2b", "b2a"), arguments, strict=True)
    }
    config = ModelConfig("cyclegan", specs, Preprocessing(3, 1, 32, True))
    save_model(tmp_path, config, {way: build_generator(spec) for way, spec in specs.items()}, "")
    if fits:
        assert load_model(tmp_path)[0].networks == specs
    else:
        with pytest.raises(UserError, match=rf"b2a translates {back[0]} to {back[1]} channels, .* have 1 and 3\."):
            load_model(tmp_path)


def test_no_model(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no model"):
        find_model(tmp_path)
