"""The command ``mltraq-ds``, one module for each group of commands.

Nothing is imported before the command line runs, and what a command needs (SQLAlchemy, pandas, rich …) only by it.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit with 0, with 1 if the command failed, with 2 if it cannot work as written."""
    from mltraq_ds.cli.app import app

    app(prog_name="mltraq-ds")
