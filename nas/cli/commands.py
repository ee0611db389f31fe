"""Imports every module that registers commands; importing this makes the command line complete."""

from nas.cli import latency, search, train

__all__ = ["latency", "search", "train"]
