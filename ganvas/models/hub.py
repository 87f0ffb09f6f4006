"""Models on the Hugging Face hub: only named files go there and come back, none of them pickled.

The extra ``hub`` brings huggingface_hub, which keeps what was fetched in a cache of its own, and asks again each time
whether there is a newer one; without a network, what was fetched before is taken.
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganvas.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hub:"
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def hub_name(path: Path | str) -> str | None:
    """Give OWNER/NAME[@REVISION] of hub:OWNER/NAME[@REVISION]; None of any other path."""
    text = path.as_posix() if isinstance(path, Path) else path
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) else None


def fetch(name: str, files: Sequence[str]) -> Path:
    """Fetch files of a repository; give the folder in which they lie.

    Args:
        name: OWNER/NAME, or OWNER/NAME@REVISION: a branch, a tag or a commit.
        files: Their names. Others are left where they are.

    Raises:
        UserError: huggingface_hub is not installed, there is no such model, or it cannot be reached.
    """
    name, _, revision = name.partition("@")
    api = _api(name)
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(api.snapshot_download(name, revision=revision or None, allow_patterns=list(files)))
    except RepositoryNotFoundError:
        raise UserError(
            f"hub:{name}: there is no such model on {api.endpoint}, or it is private. Look at the name; for a private "
            "one, log in (hf auth login) or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"hub:{name}@{revision}: the model has no such branch, tag or commit.") from None
    except Exception as error:  # the exceptions of a network share no class
        raise _unreachable(name, api, error) from None


def push(name: str, files: Mapping[str, Path | bytes], *, private: bool) -> str:
    """Write files to a repository, in one commit; it is made if it is not there.

    Args:
        name: OWNER/NAME.
        files: Their places or contents, by name.
        private: Whether a new repository is private.

    Returns:
        Its address.

    Raises:
        UserError: huggingface_hub is not installed, nobody is logged in, the owner is another, or it cannot be reached.
    """
    api = _api(name)
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        api.create_commit(name, operations, commit_message="A model of ganvas")
    except Exception as error:  # the exceptions of a network share no class
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise UserError(
                f"hub:{name}: {api.endpoint} does not let you write there. Log in (hf auth login) or set HF_TOKEN to a "
                "token that may write; give your own name or your organisation's as the owner."
            ) from None
        raise _unreachable(name, api, error) from None
    return str(url)


def _api(name: str) -> "HfApi":
    if not NAME.fullmatch(name):
        raise UserError(f"hub:{name}: is no name on the hub. Give OWNER/NAME.")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"hub:{name}: needs huggingface_hub, which is not installed: pip install 'ganvas[hub]'")
    from huggingface_hub import HfApi

    return HfApi(library_name="ganvas")


def _unreachable(name: str, api: "HfApi", error: Exception) -> UserError:
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return UserError(f"hub:{name}: {api.endpoint} cannot be reached, or refuses ({reason}). Try again later.")
