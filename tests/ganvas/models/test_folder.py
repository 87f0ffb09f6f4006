import json
import multiprocessing
import os
import sys
import time
from dataclasses import replace

import pytest
import torch

from ganvas.errors import UserError
from ganvas.files import sha256
from ganvas.models.folder import (
    ModelConfig,
    NetworkSpec,
    Preprocessing,
    build_generator,
    find_model,
    load_model,
    save_model,
)
from ganvas.models.tensors import save_tensors
from ganvas.training.checkpoint import Checkpoint, save_checkpoint
from ganvas.training.ema import Ema

SPEC = NetworkSpec("unet", {"base_channels": 4, "num_levels": 2}, "map", "terrain")
CONFIG = ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 32, True), "picture", {"step": 5})
STATE = {"model_state": {"networks": {"a2b": "G"}, "statistics": "running"}}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    generator = build_generator(SPEC)
    save_model(tmp_path / "run" / "model", CONFIG, {"a2b": generator}, "# card\n")
    return tmp_path / "run", generator


def test_a_model_round_trips(saved):
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
        networks["G_ema"] = Ema(build_generator(SPEC), 0.9).network
    tensors = {name: net.state_dict() for name, net in networks.items()}
    state = {"model_state": {"networks": {"a2b": "G_ema" if averaged else "G"}, "statistics": "running"}}
    folder = save_checkpoint(run, Checkpoint(7, tensors, state))
    config, found = load_model(folder)
    assert (config.training, config.statistics) == ({"step": 7}, "running")
    assert load_model(run)[0].statistics == "picture"
    expected = networks["G_ema"] if averaged else networks["G"]
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
    ("state", "message"),
    [
        ({}, "checkpoint.json: model_state"),
        ({"model_state": {"networks": {"b2a": "G"}, "statistics": "running"}}, "a2b.safetensors: is missing"),
        ({"model_state": {"networks": {"a2b": "G_ema"}, "statistics": "running"}}, "G_ema.safetensors: is missing"),
        ({"model_state": {"networks": {"a2b": "G"}, "statistics": "median"}}, "statistics is 'median'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(saved, state, message):
    run, generator = saved
    folder = save_checkpoint(run, Checkpoint(7, {"G": generator.state_dict()}, state))
    with pytest.raises(UserError, match=message):
        load_model(folder)


def test_a_checkpoint_without_its_run_names_what_is_missing(saved, tmp_path):
    run, generator = saved
    folder = save_checkpoint(run, Checkpoint(7, {"G": generator.state_dict()}, {}))
    moved = folder.rename(tmp_path / "step-00000007")
    with pytest.raises(UserError, match=r"step-00000007: its networks are described by .*model, which does not exist"):
        load_model(moved)


@pytest.mark.parametrize("form", ["a link", "a path through it"])
def test_a_checkpoint_is_found_by_another_path(saved, tmp_path, form):
    run, generator = saved
    state = {"model_state": {"networks": {"a2b": "G"}, "statistics": "running"}}
    folder = save_checkpoint(run, Checkpoint(7, {"G": generator.state_dict()}, state))
    (folder / "inner").mkdir()
    (tmp_path / "best").symlink_to(folder, target_is_directory=True)
    config, _ = load_model(tmp_path / "best" if form == "a link" else folder / "inner" / "..")
    assert config.training["step"] == 7


def test_both_directions_in_one_file(tmp_path):
    other = NetworkSpec("resnet", {"base_channels": 2, "num_blocks": 1}, "terrain", "map")
    config = ModelConfig("cyclegan", {"a2b": SPEC, "b2a": other}, Preprocessing(3, 3, 32, True))
    networks = {"a2b": build_generator(SPEC), "b2a": build_generator(other)}
    save_model(tmp_path, config, networks, "")
    assert {name: type(net) for name, net in load_model(tmp_path)[1].items()} == {
        n: type(v) for n, v in networks.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"kind": "pix 3"}, "kind is 'pix 3'"),
        ({"kind": "dcgan", "networks": None}, "networks is None"),
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
def test_weights_that_do_not_fit_are_refused(saved, change, message):
    file = saved[0] / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load_model(saved[0])


def test_weights_that_are_a_git_lfs_pointer_are_named_so(saved):
    (saved[0] / "model" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(UserError, match=r"model\.safetensors: is a Git LFS pointer, .* Run git lfs pull"):
        load_model(saved[0])


def peak():
    """Return the peak memory of this process, in bytes."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def arguments(**changes):
    return {"networks": {"a2b": {**vars(SPEC), "arguments": SPEC.arguments | changes}}}


def how(**changes):
    return {"preprocessing": {**vars(CONFIG.preprocessing), **changes}}


HOSTILE = [
    (arguments(base_channels=3000), "comes from another architecture"),
    (arguments(base_channels=10_000, num_levels=16), "comes from another architecture"),
    (arguments(base_channels=10**9), "base_channels is 1000000000"),
    (arguments(base_channels=-1), "base_channels is -1"),
    (arguments(base_channels=2.5), "base_channels is 2.5"),
    (arguments(base_channels=[4]), r"base_channels is \[4\]"),
    (arguments(in_channels=10**6), "in_channels is 1000000"),
    (arguments(out_channels=0), "out_channels is 0"),
    (arguments(num_levels=10**6), "num_levels is 1000000"),
    (arguments(dropout=1.5), "dropout is 1.5"),
    (arguments(dropout_levels=list(range(1000))), "dropout_levels is"),
    (arguments(norm="weight"), "norm is 'weight'"),
    (arguments(upsampling={}), r"upsampling is \{\}"),
    (arguments(wings=2), "wings is 2: Extra inputs are not permitted"),
    (
        {"networks": {"a2b": {**vars(SPEC), "architecture": "resnet", "arguments": {"num_blocks": 10**6}}}},
        "num_blocks is",
    ),
    ({"networks": [vars(SPEC)]}, "networks is"),
    ({"networks": {}}, "networks is {}"),
    ({"networks": {"a2b": {**vars(SPEC), "source": "x" * 201}}}, "source is 'x.*at most 200 characters"),
    ({"networks": {"a2b": {**vars(SPEC), "target": "a\n# b"}}}, "target is 'a.*in one line"),
    *((how(image_size=size), f"image_size is {size}") for size in (0, -1, 10**6, 8193)),
    *((how(source_channels=count), f"source_channels is {count}") for count in (0, -3, 10**6)),
    *(
        (how(**{name: values}), f"{name} is .*two finite numbers")
        for name in ("source_range", "target_range")
        for values in ([1, 1], [2, 1], [0, 1e31], [-1e31, 0], [1, 1 + 1e-12])
    ),
    (how(source_range=[0]), "source_range is|1 is"),
    *(
        (how(source_folders=["a", name]), "source_folders is .*name of a folder")
        for name in ("/etc", "../x", "a/../../x", "C:\\x", "a\\..\\b", "", "x\0")
    ),
    (how(target_folder="/etc"), "target_folder is '/etc'"),
    (how(legend=[[1, 2, 256]]), "legend is .*0 to 255"),
    (how(legend=[[1, 2, 3]] * 4097), "legend is .*at most 4096"),
    (how(legend=5), "legend is 5"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=[message[:40] for _, message in HOSTILE])
def test_a_hostile_config_is_refused_before_memory_is_allocated(saved, change, message):
    file = saved[0] / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    before = peak()
    with pytest.raises(UserError, match=message) as caught:
        load_model(saved[0])
    assert peak() - before < 200e6
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        how(image_size=8192, source_range=[-100.0, 8900.0], target_range=[0.0, 1e-3], legend=[[0, 0, 255]] * 4096),
        how(source_folders=["optical", "radar/vv", "..."], target_folder="Ziel ü"),
        {"networks": {"a2b": {**vars(SPEC), "source": "地図", "target": "x" * 200}}},
        arguments(dropout=0.0, dropout_levels=[0, 1], norm="batch", upsampling="transpose"),
    ],
)
def test_unusual_valid_configs_are_accepted(saved, change):
    file = saved[0] / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    load_model(saved[0])


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.bfloat16])
def test_weights_of_another_precision_become_float32(saved, kind):
    run, generator = saved
    save_model(run / "model", CONFIG, {"a2b": generator.to(kind)}, "")
    _, networks = load_model(run)
    for name, value in networks["a2b"].state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, generator.state_dict()[name].to(value.dtype)), name


def test_integer_weights_are_refused(saved):
    run, generator = saved
    name = next(iter(generator.state_dict()))
    weights = {f"a2b.{key}": value for key, value in generator.state_dict().items()}
    save_tensors(run / "model" / "model.safetensors", weights | {f"a2b.{name}": weights[f"a2b.{name}"].to(torch.int32)})
    file = run / "model" / "config.json"
    digest = sha256(run / "model" / "model.safetensors")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights_sha256": digest}))
    with pytest.raises(UserError, match="1 weights do not fit"):
        load_model(run)


@pytest.mark.parametrize(
    "info",
    [
        {"step": 7},
        {"step": 7, "files": []},
        {"step": 7, "files": {"G.safetensors": 5}},
        {"step": "x", "files": {}},
        *(
            {"step": 7, "files": {}, "state": {"model_state": {"networks": {"a2b": name}}}}
            for name in ("x" * 3000, "../../model/model", "/etc/x", "")
        ),
    ],
)
def test_an_incomplete_checkpoint_is_one_message(saved, info):
    run, _ = saved
    folder = save_checkpoint(run, Checkpoint(7, {"G": build_generator(SPEC).state_dict()}, {}))
    (folder / "checkpoint.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"checkpoint\.json: "):
        load_model(folder)


def save_for_ever(folder, stop):
    torch.set_num_threads(1)
    networks = [build_generator(SPEC) for _ in range(2)]
    number = 0
    while not stop.is_set():
        number += 1
        config = replace(CONFIG, training={"step": number})
        with torch.no_grad():
            for value in networks[number % 2].parameters():
                value.fill_(number)
        save_model(folder, config, {"a2b": networks[number % 2]}, "")
        time.sleep(0.01)


def _steps(found):
    return {config.training["step"] for config, _ in found}


@pytest.mark.parametrize("through", ["run", "model", "checkpoint"])
@pytest.mark.slow
def test_a_model_replaced_during_a_read_is_consistent(saved, through):
    run, generator = saved
    checkpoint = save_checkpoint(run, Checkpoint(7, {"G": generator.state_dict()}, STATE))
    path = {"run": run, "model": run / "model", "checkpoint": checkpoint}[through]
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "fork")
    stop = context.Event()
    writer = context.Process(target=save_for_ever, args=(run / "model", stop))
    writer.start()
    try:
        found, deadline = [], time.monotonic() + 60
        while len(found) < 20 or (through != "checkpoint" and len(_steps(found)) < 3 and time.monotonic() < deadline):
            found.append(load_model(path))
    finally:
        stop.set()
        writer.join()
    steps = _steps(found)
    if through == "checkpoint":
        assert steps == {7}
        return
    for config, networks in found:
        if (step := config.training["step"]) != 5:  # the fixture's
            assert all((value == step).all() for value in networks["a2b"].parameters())
    assert len(steps) > 2


@pytest.mark.parametrize(("a", "b"), [(1, 3), (3, 1)])
def test_preprocessing_with_other_channels_is_refused(saved, a, b):
    file = saved[0] / "model" / "config.json"
    changed = vars(Preprocessing(a, b, 32, True))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"preprocessing": changed}))
    with pytest.raises(UserError, match=rf"config\.json: .*a2b translates 3 to 3 channels, .* have {a} and {b}\."):
        load_model(saved[0])


@pytest.mark.parametrize(("back", "fits"), [((1, 3), True), ((3, 3), False), ((3, 1), False)])
def test_the_reverse_direction_has_the_channels_reversed(tmp_path, back, fits):
    arguments = [dict(zip(("in_channels", "out_channels"), both, strict=True)) for both in ((3, 1), back)]
    specs = {
        direction: NetworkSpec("resnet", {"base_channels": 2, "num_blocks": 1, **channels}, "A", "B")
        for direction, channels in zip(("a2b", "b2a"), arguments, strict=True)
    }
    config = ModelConfig("cyclegan", specs, Preprocessing(3, 1, 32, True))
    save_model(tmp_path, config, {direction: build_generator(spec) for direction, spec in specs.items()}, "")
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
