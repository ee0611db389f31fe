"""Imports every module that registers commands; importing this makes the command line complete."""

from nas.cli import (
    compress,
    doctor,
    export,
    inspect,
    latency,
    measure,
    netadapt,
    proxy,
    report,
    search,
    targets,
    train,
    worker,
)

__all__ = [
    "compress",
    "doctor",
    "export",
    "inspect",
    "latency",
    "measure",
    "netadapt",
    "proxy",
    "report",
    "search",
    "targets",
    "train",
    "worker",
]
