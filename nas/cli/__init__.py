"""The command line: `nas COMMAND …`. Each module here holds a few commands; what they run is imported when they run."""

from nas.cli.console import main

__all__ = ["main"]
