import pytest

from data_scripts.__main__ import main


@pytest.fixture
def run(in_process):
    """Run a command of data_scripts; return its exit code, standard output and standard error."""
    return in_process(main)
