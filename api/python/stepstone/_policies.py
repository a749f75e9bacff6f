"""What policies for saving and for keeping have in common; see `checkpoint_managers`."""

from __future__ import annotations

import dataclasses
import datetime
import operator
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from stepstone import _json, _native
from stepstone.errors import InvalidArgumentError

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_Function = TypeVar("_Function", bound=Callable[..., Any])
_TIME_NS_MIN, _TIME_NS_MAX = -(2**63), 2**63 - 1


class PolicyCheckpointInfo(Protocol):
    """What a policy is told about a checkpoint; `CheckpointInfo` is one."""

    @property
    def step(self) -> int: ...
    @property
    def time(self) -> datetime.datetime: ...
    @property
    def metrics(self) -> dict[str, Any] | None: ...


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint, as policies see it.

    Parameters
    ----------
    step : int
        The step.
    time : datetime.datetime
        When its save began, in UTC; by default now.
    metrics : dict, optional
        The metrics that were given with the save; None: it was saved without.
    """

    step: int
    time: datetime.datetime = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(tz=datetime.timezone.utc)
    )
    metrics: dict[str, Any] | None = None


def time_ns(moment: datetime.datetime) -> int:
    """Nanoseconds since 1970, as many as the library can count; a time without a zone is UTC's."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    microseconds = (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    return min(max(microseconds * 1000, _TIME_NS_MIN), _TIME_NS_MAX)


def moment_of(time_ns: int) -> datetime.datetime:
    """The time, in UTC, that is so many nanoseconds after 1970."""
    return _EPOCH + datetime.timedelta(microseconds=time_ns // 1000)


def from_native(info: _native.CheckpointInfo) -> CheckpointInfo:
    return CheckpointInfo(info.step, moment_of(info.time_ns), info.metrics)


def to_native(info: PolicyCheckpointInfo) -> _native.CheckpointInfo:
    metrics = info.metrics
    if metrics is not None:
        metrics = _json.loads(_json.dumps(plain_metrics(metrics)))
    return _native.CheckpointInfo(info.step, time_ns(info.time), metrics)


def plain_metrics(metrics: Any) -> Any:
    """Metrics, with arrays and scalars of numpy, jax or torch as Python's lists and numbers."""
    if isinstance(metrics, dict) or (hasattr(metrics, "keys") and hasattr(metrics, "items")):
        return {key: plain_metrics(value) for key, value in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        return [plain_metrics(value) for value in metrics]
    to_list = getattr(metrics, "tolist", None)
    return metrics if to_list is None else to_list()


class Guard:
    """Keeps what policies in Python raise, which has no way through the library as an object."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any) -> Any:
            try:
                return function(*args)
            except Exception as error:
                self._error = error
                raise

        return guarded

    def take(self) -> Exception | None:
        """What was raised last, once."""
        error, self._error = self._error, None
        return error


_METRIC_KEY = "_stepstone_metric_key"


def metric_key(function: Callable[[Any], Any]) -> str | None:
    """The key of the metrics that a function returns the value of, to be told to people.

    Known of `operator.itemgetter("loss")` and of `lambda metrics: metrics["loss"]`, which are told
    by their code and not called. None: it may be any other function.
    """
    known = getattr(function, _METRIC_KEY, None)
    if isinstance(known, str):
        return known
    if isinstance(function, operator.itemgetter):
        keys: Any = function.__reduce__()[1]
        return keys[0] if len(keys) == 1 and isinstance(keys[0], str) else None
    code, pattern = getattr(function, "__code__", None), _first_of.__code__
    if code is None or code.co_argcount != 1 or code.co_code != pattern.co_code:
        return None
    key = code.co_consts[pattern.co_consts.index("loss")]
    return key if isinstance(key, str) else None


def _first_of(metrics: Any) -> Any:
    return metrics["loss"]


def ranks_like(function: Callable[[Any], Any]) -> Callable[[_Function], _Function]:
    """Decorates a function that gives what `function` gives, if anything."""

    def decorate(decorated: _Function) -> _Function:
        setattr(decorated, _METRIC_KEY, metric_key(function))
        return decorated

    return decorate


def positive(value: int, name: str) -> int:
    if value < 1:
        raise InvalidArgumentError(f"{name} is {value}: it has to be at least 1")
    return value


_Policy = TypeVar("_Policy")


def adopted(policy: Any, classes: dict[str, type[_Policy]]) -> _Policy | None:
    """A policy of `classes`, which may be given as Orbax's of the same name; None: it is another.

    Not one of a class derived from these, which may decide something else.
    """
    cls = type(policy)
    ours = classes.get(cls.__name__)
    if ours is None or cls is ours:
        return None if ours is None else policy
    if not cls.__module__.startswith("orbax.checkpoint."):
        return None
    values = vars(policy) | {"steps": getattr(policy, "steps", getattr(policy, "_steps_set", ()))}
    names = [field.name for field in dataclasses.fields(ours)]  # type: ignore[arg-type]
    return ours(**{name: values[name] for name in names if name in values})
