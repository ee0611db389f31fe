"""What tests of training and trimming may ask for; studies in files that no power cut has to spare, opened quickly."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
import torch


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def _do_not_wait_for_the_disk(connection: Any, record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Optuna reads and runs all its migration scripts twice for every study that is opened; they do not change meanwhile."""
    from alembic.script import ScriptDirectory

    read = ScriptDirectory.from_config
    places: dict[str, ScriptDirectory] = {}

    def once(config: Any) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in places:
            places[place] = read(config)
        return places[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", once)
        yield


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """What a test draws does not depend on those before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Such small networks are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
