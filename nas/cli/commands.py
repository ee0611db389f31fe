"""Imports every module that registers commands; importing this makes the command line complete."""

from nas.cli import compress, doctor, inspect, latency, measure, netadapt, report, search, train

__all__ = ["compress", "doctor", "inspect", "latency", "measure", "netadapt", "report", "search", "train"]
