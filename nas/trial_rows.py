"""Reading a study's trials from a database, many at once, and writing a trial's decisions together.

Optuna builds an object of its mapper for every decision and attribute and parses every decision's offer anew: some milliseconds a
trial, which every worker would pay for every trial of all others. Here rows are read as they are, and offers are parsed once.

Source: `optuna.storages.RDBStorage._get_trials` of Optuna 5, whose tables and results these are.
"""

import functools
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

AT_ONCE = 5000  # trials; a statement has a limit on its parameters
Row = Any


def read_trials(
    engine: sql.Engine, study_id: int, states: Container[TrialState] | None, included: set[int], greater: int
) -> list[FrozenTrial]:
    """Trials of a study, by id: those in `included`, and those with an id above `greater`.

    Args:
        engine: of the database.
        study_id: of the study.
        states: that are wanted; None: all.
        included: ids.
        greater: an id; −1: all trials are wanted.
    """
    table = models.TrialModel.__table__
    columns = (table.c.trial_id, table.c.number, table.c.state, table.c.datetime_start, table.c.datetime_complete)
    wanted = sql.select(*columns).where(table.c.study_id == study_id).order_by(table.c.trial_id)
    rows: list[Row] = []
    with engine.connect() as connection:
        if earlier := sorted(trial_id for trial_id in included if trial_id <= greater):
            for some in _parts(earlier):
                rows += connection.execute(wanted.where(table.c.trial_id.in_(some))).all()
        rows += connection.execute(wanted.where(table.c.trial_id > greater)).all()
        rows = [row for row in rows if states is None or row.state in states]
        # a trial that is read as finished was told everything before, so the rest is read after its state
        return [trial for some in _parts(rows) for trial in _with_details(connection, some)]


def _with_details(connection: sql.Connection, rows: Sequence[Row]) -> Iterator[FrozenTrial]:
    ids = [row.trial_id for row in rows]

    def details(model: Any, *names: str) -> dict[int, list[Row]]:
        table = model.__table__
        columns = [table.c[name] for name in ("trial_id", *names)]
        found: dict[int, list[Row]] = {trial_id: [] for trial_id in ids}
        [key] = table.primary_key.columns
        for row in connection.execute(sql.select(*columns).where(table.c.trial_id.in_(ids)).order_by(key)):
            found[row.trial_id].append(row)
        return found

    params = details(models.TrialParamModel, "param_name", "param_value", "distribution_json")
    values = details(models.TrialValueModel, "objective", "value", "value_type")
    attributes = details(models.TrialUserAttributeModel, "key", "value_json")
    system = details(models.TrialSystemAttributeModel, "key", "value_json")
    steps = details(models.TrialIntermediateValueModel, "step", "intermediate_value", "intermediate_value_type")
    for row in rows:
        number = row.trial_id
        offers = {one.param_name: _distribution(one.distribution_json) for one in params[number]}
        told = sorted(values[number], key=lambda one: one.objective)
        yield FrozenTrial(
            number=row.number,
            state=row.state,
            value=None,
            values=[models.TrialValueModel.stored_repr_to_value(one.value, one.value_type) for one in told] or None,
            datetime_start=row.datetime_start,
            datetime_complete=row.datetime_complete,
            params={one.param_name: offers[one.param_name].to_external_repr(one.param_value) for one in params[number]},
            distributions=offers,
            user_attrs={one.key: json.loads(one.value_json) for one in attributes[number]},
            system_attrs={one.key: json.loads(one.value_json) for one in system[number]},
            intermediate_values={
                one.step: models.TrialIntermediateValueModel.stored_repr_to_intermediate_value(
                    one.intermediate_value, one.intermediate_value_type
                )
                for one in steps[number]
            },
            trial_id=number,
        )


def trials_without_heartbeat(engine: sql.Engine, trial_ids: Sequence[int]) -> list[int]:
    """Those of the trials, by id, that nobody ever told a heartbeat of."""
    table, known = models.TrialHeartbeatModel.__table__, set[int]()
    with engine.connect() as connection:
        for some in _parts(trial_ids):
            known |= set(connection.scalars(sql.select(table.c.trial_id).where(table.c.trial_id.in_(some))))
    return [trial_id for trial_id in trial_ids if trial_id not in known]


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


@functools.lru_cache(maxsize=1 << 12)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def write_params(engine: sql.Engine, told: Mapping[int, Mapping[str, tuple[float, BaseDistribution]]]) -> None:
    """Writes decisions of trials, by id and name, in one transaction; again where they are there already changes nothing."""
    rows = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(offer),
        }
        for trial_id, params in told.items()
        for name, (value, offer) in params.items()
    ]
    try:
        with engine.begin() as connection:
            connection.execute(sql.insert(models.TrialParamModel.__table__), rows)
    except sql.exc.IntegrityError:  # the answer to the same transaction was lost with a connection
        return
