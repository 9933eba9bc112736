"""The two ways in which a command ends early: its input is bad, or the run itself failed."""

from __future__ import annotations


class BadInput(Exception):
    """A file or an option that cannot be used, said in one line; exit status 2."""


class RunFailed(Exception):
    """A run on good input that came to nothing, said in one line; exit status 1."""
