"""Models on the Hugging Face hub. Only named files are uploaded and downloaded, and none of them is a pickle.

huggingface_hub (extra ``hub``) caches what it downloads, and checks each time for a newer version; without a network it
falls back to its cache.
"""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganvas.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hub:"
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def hub_name(path: Path | str) -> str | None:
    """Return OWNER/NAME[@REVISION] of hub:OWNER/NAME[@REVISION], and None for any other path."""
    text = path.as_posix() if isinstance(path, Path) else path
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) else None


def fetch(name: str, files: Sequence[str]) -> Path:
    """Download files of a repository and return the folder that holds them.

    Args:
        name: OWNER/NAME or OWNER/NAME@REVISION, where the revision is a branch, a tag or a commit.
        files: Names of the files; all others are ignored.

    Raises:
        UserError: huggingface_hub is not installed, there is no such model, or the hub cannot be reached.
    """
    name, _, revision = name.partition("@")
    api = _api(name)
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(api.snapshot_download(name, revision=revision or None, allow_patterns=list(files)))
    except RepositoryNotFoundError:
        raise UserError(
            f"hub:{name}: there is no such model on {api.endpoint}, or it is private. Check the name; for a private "
            "model, log in (hf auth login) or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"hub:{name}@{revision}: the model has no such branch, tag or commit.") from None
    except Exception as error:  # network errors share no class
        raise _unreachable(name, api, error) from None


def upload(name: str, folder: Path, files: Sequence[str], *, private: bool) -> str:
    """Upload files of a folder in one commit, create the repository if needed, and return its URL.

    Raises:
        UserError: huggingface_hub is not installed, write access is denied, or the hub cannot be reached.
    """
    api = _api(name)
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=list(files), commit_message="Upload a model of ganvas"
        )
    except Exception as error:  # network errors share no class
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise UserError(
                f"hub:{name}: {api.endpoint} denies write access. Log in (hf auth login) or set HF_TOKEN to a token "
                "with write access, and use your own name or your organization's as the owner."
            ) from None
        raise _unreachable(name, api, error) from None
    return str(url)


def _api(name: str) -> "HfApi":
    if not NAME.fullmatch(name):
        raise UserError(f"hub:{name}: not a valid name. Give OWNER/NAME.")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"hub:{name}: needs huggingface_hub, which is not installed: pip install 'ganvas[hub]'")
    from huggingface_hub import HfApi

    return HfApi(library_name="ganvas")


def _unreachable(name: str, api: "HfApi", error: Exception) -> UserError:
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return UserError(f"hub:{name}: {api.endpoint} cannot be reached or refuses ({reason}). Try again later.")
