"""Imports every module that registers commands; importing this makes the command line complete."""

from nas.cli import doctor, inspect, latency, measure, netadapt, report, search, train

__all__ = ["doctor", "inspect", "latency", "measure", "netadapt", "report", "search", "train"]
