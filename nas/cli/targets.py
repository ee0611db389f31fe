"""`nas targets`: the group of its commands, of which listing is the default; `nas targets install`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from nas.cli.console import app, progress_bar, show_json, stdout
from nas.cli.options import Json
from nas.errors import StudyError

LISTING = "list"


class Targets(TyperGroup):
    """Takes what is no command for the name of a target to list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As every group does, with the default command put in front."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = [LISTING, *args]
        return super().parse_args(ctx, args)


targets_app = typer.Typer(
    cls=Targets,
    help="""Known targets, whether they are ready, and what is missing; install a runtime on a phone.

    Example: [bold]nas targets[/], [bold]nas targets pixel6[/], [bold]nas targets install phone.yaml --build[/]
    """,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(targets_app, name="targets")


@targets_app.command(LISTING)
def targets(
    name: Annotated[str | None, typer.Argument(help="Only this one, or a target's YAML file.")] = None,
    json: Json = False,
) -> None:
    """List the known targets, whether they are ready, and what is missing.

    Example: [bold]nas targets[/]
    """
    from latency.readiness import every_readiness, pixel_readiness, readiness
    from latency.target import PIXEL, load_target

    with progress_bar("looking at targets") as bar:
        bar(name or "all that are known", 0, None)
        if name is None:
            found = list(every_readiness())
        else:
            found = [pixel_readiness() if name == PIXEL else readiness(load_target(name))]
    rows = [asdict(one) for one in found]
    if json:
        show_json({"targets": rows})
        return
    table = Table("target", "basis", "ready", "what is known or missing")
    for row in rows:
        table.add_row(escape(row["name"]), row["basis"], "yes" if row["ready"] else "no", escape(row["reason"]))
    stdout.print(table)


@targets_app.command()
def install(
    name: Annotated[str, typer.Argument(help="The target, whose device is reached over adb, or its YAML file.")],
    runtime: Annotated[
        Path | None, typer.Option(help="Your Android build: Microsoft's AAR, or a libonnxruntime.so.")
    ] = None,
    runner: Annotated[
        Path | None, typer.Option(help="With --runtime: the runner, compiled with Android's NDK.")
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Make a bundle of the arm64 Linux wheel here: CPU provider only.")
    ] = False,
    json: Json = False,
) -> None:
    """Install ONNX Runtime on the phones of a target; its outputs are compared before it takes the old one's place.

    Example: [bold]nas targets install phone.yaml --build[/]
    """
    import onnxruntime

    from latency.adb import AdbShell, pixels, serials
    from latency.address import AdbAddress
    from latency.bundle import Bundle, android_bundle, linux_bundle
    from latency.installing import install as install_on
    from latency.target import PIXEL, load_target

    if build == (runtime is not None):
        raise StudyError("either --build or --runtime FILE must be given, not both: --build needs no files of yours")
    if build and runner is not None:
        raise StudyError("--runner goes with --runtime: --build compiles its own")
    target = load_target(name)
    if (
        name == PIXEL or target.device == "none"
    ):  # what is known from published figures only stands for an attached phone
        address, phones = AdbAddress(), pixels()
    elif isinstance(target.address, AdbAddress):
        address = target.address
        phones = serials(address.serial, name=target.name, model=address.model)
    else:
        raise StudyError(
            f"{name}: a runtime is installed on phones only, this target's device is {target.device}: "
            "write a target file with `device: {kind: adb}`"
        )
    made: dict[str, Bundle] = {}
    rows: list[dict[str, str]] = []
    with progress_bar(f"installing on {target.name}") as bar:

        def make(abi: str) -> Bundle:
            if abi not in made:
                made[abi] = (
                    android_bundle(runtime, runner, abi=abi)
                    if runtime is not None
                    else linux_bundle(onnxruntime.__version__, on_step=step)
                )
            return made[abi]

        def step(what: str) -> None:
            bar(what, len(rows), None)

        for serial in phones:
            found = install_on(AdbShell(serial, folder=address.folder), make, name=name, on_step=step)
            rows.append(
                {
                    "serial": serial,
                    "kind": found.kind,
                    "runtime": found.version,
                    "abi": found.abi,
                    "sha256": found.digest,
                }
            )
    if json:
        show_json({"target": target.name, "phones": rows})
        return
    for row in rows:
        stdout.print(
            f"{escape(row['serial'])}: ONNX Runtime {row['runtime']} ({row['kind']}, {row['abi']}) is installed "
            "and computes what it must"
        )
