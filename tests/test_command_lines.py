"""What all commands have in common: a fast --help, and a quiet end when their output is not read."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "torchvision", "numpy", "PIL", "cv2", "albumentations", "lightning_fabric", "tensorboard"}
HEAVY |= {"matplotlib", "rich", "pydantic", "safetensors", "onnxruntime", "gradio"}

COMMANDS = {
    "pix2pix": "train translate evaluate report export import push serve receptive-field",
    "cyclegan": "train translate evaluate report export import push serve receptive-field",
    "dcgan": "train sample evaluate report export push receptive-field",
    "data_scripts": "list earth mnist fashion-mnist shards check combine split resize grayscale edges preview maps",
}
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, text=True, check=False, **options)


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.slow
@pytest.mark.essential
def test_help_imports_nothing_heavy(module):
    """In one process for all commands of a module."""
    code = f"""
import contextlib, io, sys
from {module}.__main__ import main

for command in ([], *{[[name] for name in COMMANDS[module].split()]}):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try: main([*command, "--help"])
        except SystemExit as end: assert end.code == 0, command
    heavy = {HEAVY} & sys.modules.keys()
    print(command, sorted(heavy), shown.getvalue().startswith("usage: "))

"""
    result = run("-c", code, capture_output=True)
    assert result.stderr == ""
    expected = [[], *([name] for name in COMMANDS[module].split())]
    assert result.stdout.splitlines() == [f"{command} [] True" for command in expected]


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.slow
def test_the_list_of_commands_is_complete(module):
    code = (
        f"import runpy, sys; sys.argv = [{module!r}, '--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code"
    )
    listed = {line.split()[0] for line in run("-c", code, capture_output=True).stdout.splitlines() if line[:2] == "  "}
    assert set(COMMANDS[module].split()) <= listed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pix2pix"], 2, "usage: pix2pix COMMAND"),
        (["pix2pix", "tranlsate", "x"], 2, "there is no command 'tranlsate'. Did you mean translate? There are: "),
        (["data_scripts", "mapps"], 2, "there is no command 'mapps'. Did you mean maps? There are: list, earth, "),
    ],
)
@pytest.mark.slow
def test_a_command_that_is_missing_or_wrong(arguments, code, message):
    result = run("-m", *arguments, capture_output=True)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr


@pytest.fixture
def unread():
    """A pipe that nobody reads: each write fails, as after `head` has ended."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


UNREAD = [
    *(["-m", *command, "--help"] for command in (["pix2pix"], ["cyclegan", "train"], ["dcgan", "sample"])),
    *(["-m", "data_scripts", *arguments] for arguments in (["--help"], ["check", "--help"], ["list", "--json"])),
    ["-m", "pix2pix", "receptive-field"],  # a table
    ["-m", "dcgan", "receptive-field", "--json"],
    ["-m", "benchmarks.fuzz", "--help"],
]


@pytest.mark.skipif(os.name == "nt", reason="pipes end in other ways")
@pytest.mark.parametrize("arguments", UNREAD, ids=lambda arguments: " ".join(arguments[1:]))
@pytest.mark.slow
def test_output_that_is_not_read_ends_quietly(unread, arguments):
    result = run(*arguments, stdout=unread, stderr=subprocess.PIPE, env=BUFFERED)
    assert (result.returncode, result.stderr) == (141, "")  # 128 + SIGPIPE: what a shell reports of `yes | head`


@pytest.mark.skipif(os.name == "nt", reason="pipes end in other ways")
@pytest.mark.parametrize("module", ["pix2pix", "data_scripts"])
@pytest.mark.slow
def test_unbuffered_output_and_messages_that_are_not_read_end_quietly(unread, module):
    unbuffered = BUFFERED | {"PYTHONUNBUFFERED": "1"}
    result = run("-m", module, "--help", stdout=unread, stderr=subprocess.PIPE, env=unbuffered)
    assert (result.returncode, result.stderr) == (141, "")
    assert run("-m", module, "nothing", stdout=subprocess.PIPE, stderr=unread, env=unbuffered).returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["data_scripts", "list"], ["pix2pix", "--help"], ["pix2pix", "receptive-field"]])
@pytest.mark.slow
def test_output_to_a_full_disk_is_one_message(arguments):
    with Path("/dev/full").open("w") as full:
        result = run("-m", *arguments, stdout=full, stderr=subprocess.PIPE, env=BUFFERED)
    assert result.returncode == 2
    message = "error: the output: No space left on device. Make room or choose another place.\n"
    assert result.stderr == f"{arguments[0]}: {message}"


@pytest.mark.parametrize(
    "file",
    sorted(
        file
        for package in (*COMMANDS, "ganvas", "benchmarks")
        for file in (ROOT / package).rglob("*.py")
        if "\nif __name__ ==" in file.read_text(encoding="utf-8")
    ),
    ids=lambda file: file.relative_to(ROOT).as_posix(),
)
def test_every_command_line_runs_through_run_command(file):
    calls = [node.func for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert {"run_command", "run_program"} & {call.id for call in calls if isinstance(call, ast.Name)}
