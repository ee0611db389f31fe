"""`nas report` and `nas dashboard`: looking at a run."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options
from nas.cli.console import app, note, show_json, stdout


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a search, a training or a trimming.")],
    other: Annotated[Path | None, typer.Argument(metavar="[RUN2]", help="Another run to compare it with.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to; by default report.html in the run's folder.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for each figure as an SVG and a PNG file as well.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a report of a run, finished or not: one HTML file that needs no network.

    Example: [bold]nas report runs/search-photos-host -o photos.html[/]
    """
    from nas.report.kinds import page_of
    from nas.report.page import render, write_figures
    from searchspace.files import write_atomically

    page = page_of(run, other)
    html = render(page)
    path = output or run / "report.html"
    write_atomically(path, html.encode())
    drawn = [] if figures is None else write_figures(page, figures)
    if json:
        show_json({"path": path, "figures": drawn, "remarks": page.remarks, "networks": len(page.networks)})
        return
    for remark in page.remarks:
        note(remark)
    stdout.print(f"report: {path}")
    if drawn:
        stdout.print(f"{len(drawn)} figures: {figures}")
