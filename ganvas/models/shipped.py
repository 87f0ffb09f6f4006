"""Models that come with ganvas: each is a model folder in the package, and is found by its name."""

from pathlib import Path

from ganvas.errors import UserError

PREFIX = "ganvas:"
SHIPPED = Path(__file__).parent / "shipped"


def shipped_names() -> list[str]:
    """Return the names of all models that come with ganvas."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()) if SHIPPED.is_dir() else []


def shipped_model(path: Path | str) -> Path | None:
    """Return the folder of a model that comes with ganvas, for its NAME or ganvas:NAME; None for any other path.

    Raises:
        UserError: There is no model ganvas:NAME, or NAME is also a file or folder here.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    name, names = text.removeprefix(PREFIX), shipped_names()
    if text.startswith(PREFIX) and name not in names:
        raise UserError(f"{text}: ganvas comes with no such model. It has: {', '.join(names) or 'none'}.")
    if name not in names:
        return None
    if not text.startswith(PREFIX) and Path(text).exists():
        raise UserError(
            f"{text}: is a name here and also that of a model that comes with ganvas. Use {PREFIX}{name} for that "
            f"model, or the full path {Path(text).absolute()}."
        )
    return SHIPPED / name
