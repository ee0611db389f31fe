"""`nas proxy`: Optuna's gRPC proxy in front of a search's storage, for very many workers."""

from typing import Annotated

import typer

from nas.cli import options
from nas.cli.console import app, note, show_json


@app.command()
def proxy(
    storage: Annotated[str, typer.Option(help="Optuna storage URL, such as postgresql://nas@host/nas.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all. There is no encryption.")
    ] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 13000,
    json: options.Json = False,
) -> None:
    """Stand between a search's database and very many workers, who then give [bold]--storage grpc://HOST:PORT[/].

    They share its few connections and need neither the database's driver nor its password. Runs until it is interrupted.

    Example: [bold]nas proxy --storage postgresql://nas@host/nas --host 0.0.0.0[/]
    """
    from nas.proxy import SCHEME, serve
    from nas.storage import open_storage

    server = serve(open_storage(storage), host=host, port=port)
    url = f"{SCHEME}://{host}:{port}"
    if json:
        show_json({"url": url})
    note(f"listening: workers give --storage {url}")
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        note("the proxy has ended")
    finally:
        server.stop(grace=1.0)
