"""``python -m data_scripts fashion-mnist --out DIR``: as ``mnist``, with clothes."""

from collections.abc import Sequence

from data_scripts.sets.mnist import fetch


def main(argv: Sequence[str]) -> int:
    """Fetch or check Fashion-MNIST; give the exit code.

    Raises:
        UserError: As `ganvas.data.digits.load_idx_pair`.
    """
    return fetch("fashion-mnist", argv)
