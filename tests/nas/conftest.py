"""What tests of training and trimming may ask for; studies in files that no power cut has to spare."""

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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Such small networks are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
