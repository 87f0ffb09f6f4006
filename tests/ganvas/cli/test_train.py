"""How train reads its options: which defaults hold, and which combinations contradict each other."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cyclegan.config import CycleGanConfig
from dcgan.config import DcganConfig
from ganvas.cli.train import parse_train
from ganvas.errors import UserError
from ganvas.json_files import write_json
from ganvas.options import from_json, to_json
from ganvas.training.config import ScheduleConfig, with_settings
from pix2pix.__main__ import Train
from pix2pix.config import Pix2PixConfig, preset


def parse(*arguments):
    line = [str(argument) for argument in arguments]
    return parse_train("pix2pix", Train, Pix2PixConfig, ("paper", "best", "demo"), preset, line).options


@pytest.fixture
def run(tmp_path):
    """Make what a run of the preset demo records, with a learning rate and a length of its own."""

    def record(config):
        demo = preset("demo")
        options = replace(
            config,
            optimizer=replace(demo.optimizer, lr=0.001),
            schedule=replace(demo.schedule, steps=40),
        )
        (tmp_path / "run").mkdir()
        write_json(tmp_path / "run" / "config.json", to_json(options))
        return tmp_path / "run"

    return record


def test_adding_resume_to_the_command_resumes_the_run(run):
    options = parse("--out", run(preset("demo")), "--preset", "demo", "--lr", "0.001", "--resume")
    assert options == replace(
        preset("demo"),
        optimizer=replace(preset("demo").optimizer, lr=0.001),
        schedule=replace(preset("demo").schedule, steps=40),  # the run's own, not the preset's
    )


def test_another_preset_is_refused_on_resume(run):
    with pytest.raises(UserError, match=r"--lambda-l1 \(was 100.0, now 50.0\)"):
        parse("--out", run(Pix2PixConfig()), "--preset", "demo", "--resume")


def test_a_preset_of_all_defaults_is_refused_on_resume(run):
    with pytest.raises(UserError, match=r"--lambda-l1 \(was 50.0, now 100.0\)"):
        parse("--out", run(preset("demo")), "--preset", "paper", "--resume")


def test_another_folder_is_passed_on_when_resuming_for_its_content_to_be_compared(run, tmp_path):
    config = preset("demo")
    folder = run(replace(config, data=replace(config.data, data=tmp_path / "set")))
    assert parse("--out", folder, "--resume", "--data", "other").data.data == Path("other").resolve()
    with pytest.raises(UserError, match=r"--direction \(was 'a2b', now 'b2a'\)"):
        parse("--out", folder, "--resume", "--data", "other", "--direction", "b2a")


@pytest.mark.parametrize("other", ["--preset=demo", "--resume"])
def test_a_config_together_with_other_defaults_is_refused(run, other):
    folder = run(preset("demo"))
    with pytest.raises(UserError, match=f"config.json and {other.partition('=')[0]} both set every option"):
        parse("--out", folder, "--config", folder / "config.json", other)


def test_a_config_sets_defaults_and_options_override_them(run):
    options = parse("--out", "elsewhere", "--config", run(preset("demo")) / "config.json", "--batch-size", "2")
    assert (options.data.batch_size, options.model.lambda_l1, options.optimizer.lr) == (2, 50.0, 0.001)


def test_settings_of_no_preset_leave_a_config_as_it_is():
    config = preset("demo")
    assert with_settings(config, Pix2PixConfig(), [Pix2PixConfig()]) == config


@pytest.mark.parametrize("options", [["--config"], ["--resume", "--out"]])
@pytest.mark.parametrize(("other", "config"), [("cyclegan", CycleGanConfig()), ("dcgan", DcganConfig())])
def test_a_config_of_another_command_is_one_message(tmp_path, other, config, options):
    write_json(tmp_path / "config.json", to_json(config) | {"command": other})
    place = tmp_path / "config.json" if options == ["--config"] else tmp_path
    with pytest.raises(UserError) as error:
        parse(*options, place, *([] if "--out" in options else ["--out", tmp_path / "new"]))
    assert str(error.value) == (
        f"{tmp_path / 'config.json'}: is the config of a {other} run. Use {other} train, or a config of pix2pix."
    )


def test_a_models_config_is_not_a_runs(tmp_path):
    write_json(tmp_path / "config.json", {"format_version": 1, "kind": "pix2pix", "networks": {}})
    with pytest.raises(UserError, match="is the config of a model"):
        parse("--config", tmp_path / "config.json", "--out", tmp_path / "new")


def test_unknown_options_are_listed_once(tmp_path):
    write_json(tmp_path / "config.json", {"model": {f"option_{n}": 1 for n in range(9)}, "seed": -1})
    with pytest.raises(UserError) as error:
        parse("--config", tmp_path / "config.json", "--out", tmp_path / "new")
    assert "seed is -1: Input should be greater than or equal to 0" in str(error.value)
    assert str(error.value).endswith("option_0, option_1, option_2 and 6 more: there are no such options.")


@dataclass(frozen=True)
class Domains:
    domains: dict[str, str]


def test_long_names_and_values_are_shortened():
    values = {"x" * 3000: 1, "steps": "y" * 3000}
    with pytest.raises(UserError) as error:
        from_json(ScheduleConfig, values, "config.json")
    assert "x" * 80 + "…: there is no such option" in str(error.value)
    assert len(str(error.value)) < 400
    for values in ({"format_version": "y" * 3000}, {"domains": {"x" * 3000: 5}}):
        with pytest.raises(UserError) as error:
            from_json(Domains, values, "dataset.json")
        assert len(str(error.value)) < 400
