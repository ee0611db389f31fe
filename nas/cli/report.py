"""`nas report` and `nas dashboard`: looking at a run."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options
from nas.cli.console import app, note, show_json, stdout


@app.command()
def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a search, a training, a trimming or a compression.")
    ],
    other: Annotated[Path | None, typer.Argument(metavar="[RUN2]", help="Another run to compare it with.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to; by default report.html in the run's folder.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for each figure as an SVG and a PNG file as well.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL of a search whose study does not lie in its folder.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a report of a run, finished or not: one HTML file that needs no network.

    Example: [bold]nas report runs/search-photos-host -o photos.html[/]
    """
    from nas.report.kinds import page_of
    from nas.report.page import render, write_figures
    from nas.storage import open_storage
    from searchspace.files import write_atomically

    if storage is not None:
        open_storage(storage, make=False)  # one that cannot be used is an error, not a report without candidates
    page = page_of(run, other, storage=storage)
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


@app.command()
def dashboard(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Folder of a search.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL, where the study does not lie in the run's folder.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve on; others than this machine's let others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    json: options.Json = False,
) -> None:
    """Serve Optuna's dashboard on a search, architectures and report attached, or on all of a storage, without reports.

    It serves until it is interrupted.

    Example: [bold]nas dashboard runs/search-photos-host[/]
    """
    from nas.errors import ReportError
    from nas.report.board import attach_architectures, attach_report, server
    from nas.report.kinds import page_of
    from nas.report.page import render
    from nas.report.reading import open_folder
    from nas.report.searches import study_name
    from nas.storage import open_storage

    if run is None and storage is None:
        raise ReportError("a run or a storage is needed: `nas dashboard RUN`, or `nas dashboard --storage URL`")
    name = None
    if run is not None:
        folder, kind = open_folder(run)
        if kind != "search":
            raise ReportError(f"{run}: only a search has a study, got a run of kind {kind!r}; see `nas report {run}`")
        if storage is None:
            if not (run / "study.db").exists():
                raise ReportError(f"{run}: its study lies elsewhere; give the --storage that it was started with")
            storage = f"sqlite:///{run / 'study.db'}"
        name = study_name(folder)
    opened = open_storage(str(storage))
    attach_architectures(opened, name)
    if run is not None and name is not None:
        attach_report(opened, run, name, render(page_of(run, storage=storage)))
    else:
        note(
            "architectures are attached, and no report: `nas dashboard RUN --storage URL` attaches that of a search's folder"
        )
    served = server(str(storage), host=host, port=port, run=run)
    url = f"http://{host}:{served.server_port}/dashboard"
    if json:
        show_json({"url": url})
    else:
        stdout.print(f"dashboard: {url} (Ctrl-C ends it)")
    with served:
        try:
            served.serve_forever()
        except KeyboardInterrupt:
            note("the dashboard has ended")
