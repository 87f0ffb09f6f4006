import os
from pathlib import Path

import hypothesis
import pytest

# A property's first example pays for imports and for other work on the machine: time limits would only be noise.
hypothesis.settings.register_profile("ganvas", deadline=None)
hypothesis.settings.load_profile("ganvas")


@pytest.fixture(scope="session")
def published_data():
    """The folder of published data sets; tests that need it are skipped where it is not."""
    folder = os.environ.get("GANVAS_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GANVAS_DATA names no folder of published data sets")
    return Path(folder).resolve()
