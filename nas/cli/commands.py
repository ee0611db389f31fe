"""Imports every module that registers commands; importing this makes the command line complete."""

from nas.cli import latency, search

__all__ = ["latency", "search"]
