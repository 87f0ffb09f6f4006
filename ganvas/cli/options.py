"""Annotations of command-line options."""

import tyro


def optional(metavar: str) -> object:
    """Annotate an option whose default, None, is explained by its help; --help then does not show None."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")
