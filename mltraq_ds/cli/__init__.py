"""The command ``mltraq-ds``."""

from __future__ import annotations

import argparse

from mltraq_ds import __version__

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="mltraq-ds", description="Crash-safe data store for experiments.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args()
    parser.print_help()
