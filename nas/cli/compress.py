"""`nas compress`: Deep Compression of a trained network."""

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from nas.cli import options
from nas.cli.console import app, progress_bar, show_json, stdout
from nas.cli.images import images_of
from nas.cli.running import Shown

if TYPE_CHECKING:
    from nas.compression.squeezing import Compressed


@app.command()
def compress(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Trained network (.pt), or a run.")],
    data: options.Data = "digits",
    density: Annotated[float, typer.Option(help="Share of the weights that stays; divided among the layers.")] = 0.33,
    layer_density: Annotated[
        list[str] | None,
        typer.Option(help="A layer's own, such as blocks.3.expand3x3=0.3; may be given several times."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of pruning and retraining.")] = 3,
    conv_bits: Annotated[int, typer.Option(help="Of a shared weight of a convolution, 1 to 8.")] = 6,
    linear_bits: Annotated[int, typer.Option(help="Of a shared weight of a linear layer, 1 to 8.")] = 5,
    epochs: Annotated[float | None, typer.Option(help="Of each retraining; by default the recipe's.")] = None,
    recipe: Annotated[str, typer.Option(help="Recipe of the retrainings: a shipped one, or a YAML file.")] = "compress",
    distill: Annotated[
        float, typer.Option(help="Share of the retrainings' loss that the start's softened logits have.")
    ] = 0.0,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; by default in the run's folder.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command resumes it.")] = None,
    json: options.Json = False,
) -> None:
    """Make a network's file many times smaller: prune weights, share the others, code both, exactly restorable.

    Every command that reads a checkpoint reads the file as well.

    Example: [bold]nas compress network.pt --data photos/ --density 0.3 -o network.nasz[/]
    """
    import torch

    from nas.checkpoint import load_checkpoint
    from nas.compression.squeezing import Settings, compressible
    from nas.compression.squeezing import compress as squeeze
    from nas.evaluation import as_trained
    from nas.recipe import load_recipe
    from nas.run import open_run
    from nas.shipping.place import check_place
    from nas.threads import laid_out

    name, checkpoint = options.name_of(checkpoint), options.network(checkpoint)
    start = load_checkpoint(checkpoint)
    how = load_recipe(recipe)
    if epochs is not None:
        how = dataclasses.replace(how, epochs=epochs, images=None)
    settings = Settings(
        density=density,
        layer_densities=_layer_densities(layer_density or []),
        rounds=rounds,
        conv_bits=conv_bits,
        linear_bits=linear_bits,
        retrain=how,
        tune=dataclasses.replace(how, lr=how.lr / 10, weight_decay=0.0),
        distill=distill,
        seed=seed,
    )
    found = compressible(start, settings)  # what cannot be done as asked takes no folder
    if all(layer.name.removesuffix(".weight") in settings.layer_densities for layer in found):
        _refuse_density(context)
    if output is not None:
        check_place(output, folder=False)
    images = as_trained(images_of(start, data, strict=strict, seed=None), start)
    request = {
        "start": hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16],
        "data": images.fingerprint,
        **dataclasses.asdict(settings),
        "distill": distill or None,
    }
    folder = out or Path("runs") / f"compress-{images.name}-{name}"
    with open_run(folder, kind="compress", request=request) as run:
        laid = laid_out(how, start.architecture, run, what="retrain", threads=torch.get_num_threads())
        settings = dataclasses.replace(
            settings,
            retrain=laid,
            tune=dataclasses.replace(settings.tune, channels_last=laid.channels_last),
        )
        with progress_bar("compressing") as bar:
            result = squeeze(run, start, images, settings=settings, events=Shown(bar), path=output)
        report = {**_report(result), "skipped": list(images.skipped)}
        run.write_json("result.json", report)
    if json:
        show_json(report)
    else:
        _show(result)


def _layer_densities(texts: list[str]) -> dict[str, float]:
    from nas.errors import CompressionError

    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise CompressionError(
                f"--layer-density must be NAME=DENSITY, such as blocks.3.conv=0.3; got {text!r}"
            ) from None
    return found


def _refuse_density(context: typer.Context) -> None:
    """Where every layer has a density of its own, that of all is not asked for.

    Raises:
        CompressionError: it was given.
    """
    from nas.errors import CompressionError

    if options.given(context, "density"):
        raise CompressionError("--density would change nothing where every layer has a --layer-density: leave it out")


def _report(result: "Compressed") -> dict[str, Any]:
    return {
        "path": str(result.path),
        "bytes": result.bytes,
        "dense_bytes": result.dense_bytes,
        "ratio": result.ratio,
        "accuracy_before": result.accuracy_before,
        "accuracy_pruned": result.accuracy_pruned,
        "accuracy_after": result.accuracy_after,
        "other_bytes": result.other_bytes,
        "tensors": [dataclasses.asdict(size) for size in result.sizes],
    }


def _show(result: "Compressed") -> None:
    table = Table(title="What the file holds")
    for heading in ("tensor", "bytes before", "kept", "values", "codebook", "codes", "gaps", "bytes"):
        table.add_column(heading, justify="left" if heading == "tensor" else "right")
    plain, plain_before = 0, 0
    for size in result.sizes:
        if size.clusters is None:
            plain, plain_before = plain + size.bytes, plain_before + size.dense_bytes
            continue
        parts = (f"{size.parts[name]:,}" for name in ("codebook", "codes", "gaps"))
        table.add_row(
            size.name, f"{size.dense_bytes:,}", f"{size.density:.0%}", str(size.clusters), *parts, f"{size.bytes:,}"
        )
    table.add_row("everything else, as it is", f"{plain_before:,}", *([""] * 5), f"{plain:,}")
    table.add_row("header and digest", "", *([""] * 5), f"{result.other_bytes:,}")
    stdout.print(table)
    stdout.print(
        f"{result.dense_bytes:,} → {result.bytes:,} bytes ({result.ratio:.1f}× smaller), accuracy on the test split "
        f"{result.accuracy_before:.2%} → {result.accuracy_after:.2%} (pruned, before sharing: {result.accuracy_pruned:.2%})"
    )
    stdout.print(f"file: {result.path}")
