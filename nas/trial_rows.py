"""Reading a study's trials from a database, many at once, and writing what is told of one in few statements.

Optuna builds an object of its mapper for every decision and attribute and parses every decision's offer anew: some milliseconds a
trial, which every worker would pay for every trial of all others. Here rows are read as they are, and offers are parsed once.

Source: `optuna.storages.RDBStorage` of Optuna 5, whose tables and results these are.
"""

import functools
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import postgresql

AT_ONCE = 1000  # trials; a statement has a limit on its parameters, and names each trial five times
TRIALS = models.TrialModel.__table__
TRIAL = tuple(TRIALS.c[name] for name in ("trial_id", "number", "state", "datetime_start", "datetime_complete"))
VALUE, STEP = models.TrialValueModel, models.TrialIntermediateValueModel
DETAILS: tuple[tuple[Any, str, str, str | None, str], ...] = (
    (models.TrialParamModel, "param_id", "param_name", "param_value", "distribution_json"),
    (VALUE, "trial_value_id", "objective", "value", "value_type"),
    (models.TrialUserAttributeModel, "trial_user_attribute_id", "key", None, "value_json"),
    (models.TrialSystemAttributeModel, "trial_system_attribute_id", "key", None, "value_json"),
    (STEP, "trial_intermediate_value_id", "step", "intermediate_value", "intermediate_value_type"),
)
"""What is told of a trial: its table, and there the columns of the row's id, its name, its number and its text."""
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
    wanted = sql.select(*TRIAL).where(TRIALS.c.study_id == study_id).order_by(TRIALS.c.trial_id)
    earlier = sorted(trial_id for trial_id in included if trial_id <= greater)
    with _at_once(engine) as connection:
        found = [
            row
            for some in _parts(earlier)
            for row in connection.execute(wanted.where(TRIALS.c.trial_id.in_(some))).all()
        ]
        found += connection.execute(wanted.where(TRIALS.c.trial_id > greater)).all()
        found = [row for row in found if states is None or row.state in states]
        # a trial that is read as finished was told everything before, so the rest is read after its state
        return [trial for some in _parts(found) for trial in _with_details(connection, some)]


def read_trial(engine: sql.Engine, trial_id: int) -> FrozenTrial | None:
    """The trial of an id; None where there is none."""
    with _at_once(engine) as connection:
        rows = connection.execute(sql.select(*TRIAL).where(TRIALS.c.trial_id == trial_id)).all()
        return next(_with_details(connection, rows), None) if rows else None


def _at_once(engine: sql.Engine) -> sql.Connection:
    """A connection whose every statement is a transaction: it sees what is committed when it begins, and needs no end."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _with_details(connection: sql.Connection, rows: Sequence[Row]) -> Iterator[FrozenTrial]:
    """Trials with all that they were told."""
    ids = [row.trial_id for row in rows]
    found: dict[int, list[list[Row]]] = {trial_id: [[] for _ in DETAILS] for trial_id in ids}
    for row in sorted(connection.execute(_details(), {"ids": ids}), key=lambda row: int(row[2])):
        found[row.trial_id][row.kind].append(row)
    for row in rows:
        params, values, attributes, system, steps = found[row.trial_id]
        offers = {one.key: _distribution(one.text) for one in params}
        told = sorted(values, key=lambda one: int(one.key))
        yield FrozenTrial(
            number=row.number,
            state=row.state,
            value=None,
            values=[VALUE.stored_repr_to_value(one.number, VALUE.TrialValueType[one.text]) for one in told] or None,
            datetime_start=row.datetime_start,
            datetime_complete=row.datetime_complete,
            params={one.key: offers[one.key].to_external_repr(one.number) for one in params},
            distributions=offers,
            user_attrs={one.key: json.loads(one.text) for one in attributes},
            system_attrs={one.key: json.loads(one.text) for one in system},
            intermediate_values={
                int(one.key): STEP.stored_repr_to_intermediate_value(
                    one.number, STEP.TrialIntermediateValueType[one.text]
                )
                for one in steps
            },
            trial_id=row.trial_id,
        )


@functools.cache
def _details() -> sql.CompoundSelect[Any]:
    """All that trials were told: it lies in five tables and is read by one statement."""
    return sql.union_all(
        *(
            sql.select(
                sql.literal(kind).label("kind"),
                *(model.__table__.c[name] for name in ("trial_id", identity)),
                sql.cast(model.__table__.c[key], sql.String).label("key"),
                (sql.null() if number is None else model.__table__.c[number]).label("number"),
                sql.cast(model.__table__.c[text], sql.Text).label("text"),
            ).where(model.__table__.c.trial_id.in_(sql.bindparam("ids", expanding=True)))
            for kind, (model, identity, key, number, text) in enumerate(DETAILS)
        )
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


def write_detail(engine: sql.Engine, model: Any, told: Mapping[str, Any], *, key: str) -> bool:
    """Writes one thing that is told of a trial, in one statement, over what was told before.

    Args:
        engine: of the database.
        model: whose table it belongs to.
        told: by column; `trial_id` and `key` say which row it is.
        key: a column.

    Returns:
        Whether it was written: not to a trial that has ended or is not there, and not where the database has no such statement.
    """
    if engine.dialect.name != "postgresql":
        return False
    with _at_once(engine) as connection:
        statement = _upsert(model, key, tuple(told))
        return connection.execute(statement, dict(told), execution_options={"preserve_rowcount": True}).rowcount == 1


@functools.cache
def _upsert(model: Any, key: str, columns: tuple[str, ...]) -> Any:
    """The statement of `write_detail`; its parameters are called as the columns."""
    table = model.__table__
    goes_on = sql.exists().where(
        TRIALS.c.trial_id == sql.bindparam("trial_id"), TRIALS.c.state.in_((TrialState.RUNNING, TrialState.WAITING))
    )
    row = sql.select(*(sql.bindparam(name, type_=table.c[name].type) for name in columns)).where(goes_on)
    new = postgresql.insert(table).from_select(list(columns), row)
    return new.on_conflict_do_update(
        index_elements=["trial_id", key],
        set_={name: new.excluded[name] for name in columns if name not in ("trial_id", key)},
    )
