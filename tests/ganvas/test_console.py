import errno
import os
import subprocess
import sys

import pytest

from ganvas.console import run_command
from ganvas.errors import UserError

pytestmark = pytest.mark.slow


def failing(error):
    def command(arguments):
        raise error

    return command


def test_the_commands_own_exit_code_and_arguments():
    assert run_command("x", len, ["a", "b"]) == 2
    assert run_command("x", len, ["a", "--debug"]) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("what: where. do this"), "x: error: what: where. do this\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/file"), "x: error: /a/file: No space left on device."),
        (PermissionError(errno.EACCES, "Permission denied", "/a/file"), "x: error: /a/file: Permission denied."),
    ],
)
def test_expected_failures_are_one_message(capsys, error, message):
    assert run_command("x", failing(error), []) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert "Traceback" not in err


def test_debug_shows_the_traceback():
    with pytest.raises(UserError):
        run_command("x", failing(UserError("what")), ["--debug"])


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EPIPE, "Broken pipe")])
def test_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run_command("x", failing(error), [])


def test_ctrl_c():
    assert run_command("x", failing(KeyboardInterrupt()), []) == 130


def test_upstream_names_of_directions():
    seen = []
    given = ["AtoB", "--direction", "AtoB", "--direction=BtoA", "--data", "BtoA", "--direction", "both"]
    run_command("x", lambda arguments: seen.extend(arguments) or 0, given)
    assert seen == ["AtoB", "--direction", "a2b", "--direction=b2a", "--data", "BtoA", "--direction", "both"]


def test_a_file_name_that_is_not_utf8_is_printed_as_an_escape():
    code = "from ganvas.console import run_command; run_command('x', lambda _: print('na\\udcefve') or 0, [])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [rb"na\udcefve"]
