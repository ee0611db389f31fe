"""Options that several commands share, so that they mean and say the same everywhere."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer

Given = TypeVar("Given", str, Path, str | None)


def network(value: Given) -> Given:
    """What a command was given for a network: the folder of a run stands for the run's network."""
    if value is None or not Path(value).is_dir():
        return value
    from nas.run import network_of

    return type(value)(network_of(Path(value)))


def networks(values: list[str] | None) -> list[str]:
    """The same for each of several."""
    return [network(value) for value in values or ()]


def name_of(given: str | Path) -> str:
    """A name for what is made of a network, from how it was given: its run's (and the file's, where a run has several)."""
    path = Path(given)
    if path.is_dir():
        return path.resolve().name
    run = path.resolve().parent
    if not path.exists() or not (run / "run.json").exists():
        return path.stem
    return run.name if path.stem == "network" else f"{run.name}-{path.stem}"


def given(context: typer.Context, *names: str) -> list[str]:
    """Those of some options that were given on the command line, as one types them; `names` are their parameters'."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [
        f"--{name.replace('_', '-')}"
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    ]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Seed = Annotated[int, typer.Option("--seed", help="Everything random follows from it.")]
Target = Annotated[str, typer.Option("--target", help="Name of a target, or its YAML file (see `nas targets`).")]
Data = Annotated[
    str, typer.Option("--data", help="Image folder, Parquet, tar shards, .npz, IDX files, digits, or hf:NAME.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse damaged images instead of leaving them out.")]
WidthMultiplier = Annotated[
    float, typer.Option("--width-multiplier", help="α of a reference: multiplies its channel counts.")
]
Resolution = Annotated[
    int | None, typer.Option("--resolution", min=1, help="ρ: pixels a side; by default as ARCH says.")
]
Classes = Annotated[int | None, typer.Option("--classes", min=1, help="Outputs; by default as ARCH says.")]
Channels = Annotated[int | None, typer.Option("--channels", min=1, help="Of the input; by default as ARCH says.")]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance", help="Up to which two halves of a measurement agree, relative to the smaller; by default 0.02."
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        help="Learn from it too: a checkpoint, an ONNX file, or package.module:function that makes a torch module.",
    ),
]
DistillWeight = Annotated[
    float, typer.Option("--distill-weight", help="Share of the loss that the teacher's soft labels have.")
]
Temperature = Annotated[float, typer.Option("--temperature", help="Softens the teacher's labels; 1 leaves them.")]
Replicas = Annotated[
    int,
    typer.Option("--replicas", min=1, help="In how many augmented ways the teacher labels every image, once for all."),
]
