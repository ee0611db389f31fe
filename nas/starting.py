"""What a search may begin with: given networks, the best of an earlier search, or the network of any other run."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna

from nas.arch import load_architecture
from nas.checkpoint import load_checkpoint
from nas.errors import StudyError
from nas.final_training import by_worth
from nas.outcomes import Tried, completed
from nas.run import network_of, result_of
from nas.storage import first_line, open_storage
from searchspace.architecture import Architecture
from searchspace.recalling import recall
from searchspace.space import Space

BEST = 8  # networks of a run


def starting_networks(sources: Sequence[str], space: Space, *, note: Callable[[str], None]) -> tuple[Architecture, ...]:
    """Networks that the sources name; of those of other data, the same with this data's channels and classes.

    Args:
        sources: each a run's folder, or ARCH as on the command line.
        space: adapted to the data.
        note: told of networks that are not in the space: those are candidates too, but none are drawn around them.

    Raises:
        StudyError: a folder holds no run that has ended with a network.
        NasError: there is no such reference or file, or it is damaged.
    """
    found: dict[str, Architecture] = {}
    for source in sources:
        networks = _best(Path(source)) if Path(source).is_dir() else [load_architecture(source)]
        fitted = [_fitted(network, space) for network in networks]
        outside = sum(recall(space, one) is None for one in fitted)
        if outside:
            note(
                f"{source}: {outside} of {len(networks)} networks are not in this space: they are tried as they are, "
                "and none are drawn around them"
            )
        found |= {one.fingerprint: one for one in fitted}
    return tuple(found.values())


def _fitted(network: Architecture, space: Space) -> Architecture:
    resolution = network.resolution if network.resolution in space.resolution else space.resolution[0]
    return dataclasses.replace(network, resolution=resolution, channels=space.channels, classes=space.classes, name="")


def _best(folder: Path) -> list[Architecture]:
    """The first candidates of a search in the order in which they are worth full training, else its finalists; or one network."""
    result = result_of(folder)
    if "finalists" not in result:
        return [load_checkpoint(network_of(folder)).architecture]
    try:
        name, finalists = result["study"], [Path(one["checkpoint"]).name for one in result["finalists"]]
    except (KeyError, TypeError) as error:
        raise StudyError(f"{folder}: the result of its search is damaged ({first_line(error)})") from error
    candidates = _candidates(folder / "study.db", name)
    if not candidates:  # its study is in a storage elsewhere
        return [load_checkpoint(folder / "finalists" / finalist).architecture for finalist in finalists[:BEST]]
    return [one.architecture for one in by_worth(candidates)[:BEST]]


def _candidates(database: Path, name: str) -> list[Tried]:
    if not database.is_file():
        return []
    try:
        return completed(optuna.load_study(storage=open_storage(f"sqlite:///{database}", make=False), study_name=name))
    except KeyError:  # there is no such study
        return []
