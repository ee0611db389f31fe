"""`nas doctor`: what is installed, which extras, which targets are ready; and `nas --version`."""

import dataclasses
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nas.cli import options
from nas.cli.console import app, progress_bar, show_json, stdout

DISTRIBUTION = "pocketnas"
PROGRAMS = {
    "adb": "phones",
    "ssh": "boards",
    "aarch64-linux-gnu-gcc": "nas targets install --build",
}


def _tell_version(wanted: bool) -> None:
    if wanted:
        stdout.print(f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Finds, trims and ships neural networks that are as accurate as they can be within a latency budget on one device."""


@app.command()
def doctor(json: options.Json = False) -> None:
    """Tell what is installed, what is missing and how to get it, and which targets are ready.

    Example: [bold]nas doctor[/]
    """
    with progress_bar("looking") as bar:
        bar("looking at the installation", 0, None)
        needed, extras = _requirements()
        found = {
            "version": importlib.metadata.version(DISTRIBUTION),
            "python": platform.python_version(),
            "machine": _machine(),
            "packages": {name: _version(name) for name in needed},
            "extras": [
                {"name": extra, "installed": not missing, "missing": missing}
                for extra, names in extras.items()
                for missing in [[name for name in names if _version(name) is None]]
            ],
            "programs": {name: shutil.which(name) for name in PROGRAMS},
            "targets": _targets(),
        }
    if json:
        show_json(found)
        return
    _show(found)


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the packages that are always needed, and those of each extra for users."""
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires(DISTRIBUTION) or []:
        name = re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", requirement)
        if extra is None:
            needed.append(name)
        elif extra[1] != "dev":
            extras.setdefault(extra[1], []).append(name)
    return needed, extras


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    """What networks are trained on here."""
    import torch

    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(), "gpus": cards}


def _targets() -> list[dict[str, Any]]:
    """Every shipped target, and whether its latency model can be used."""
    from latency.readiness import every_readiness

    return [dataclasses.asdict(found) for found in every_readiness()]


def _show(found: dict[str, Any]) -> None:
    machine = found["machine"]
    cards = ", ".join(machine["gpus"]) or "no CUDA card"
    stdout.print(
        f"{DISTRIBUTION} {found['version']}, Python {found['python']}, {machine['system']}, {machine['cores']} cores, {cards}"
    )
    stdout.print(", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items()))
    extras = Table("extra", "installed", "to get it")
    for extra in found["extras"]:
        hint = "" if extra["installed"] else f"pip install {DISTRIBUTION}\\[{extra['name']}]"
        extras.add_row(extra["name"], "yes" if extra["installed"] else "no", hint)
    stdout.print(extras)
    programs = Table("program", "found", "for")
    for name, path in found["programs"].items():
        programs.add_row(name, path or "no", PROGRAMS[name])
    stdout.print(programs)
    targets = Table("target", "basis", "ready", "what is known or missing")
    for row in found["targets"]:
        targets.add_row(escape(row["name"]), row["basis"], "yes" if row["ready"] else "no", escape(row["reason"]))
    stdout.print(targets)
