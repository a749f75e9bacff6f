"""Policies: what each of them saves and keeps, asked by itself and by a manager."""

from __future__ import annotations

import datetime
import operator
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import pytest

import stepstone as ocp
from stepstone import _policies
from stepstone import checkpoint_managers as policies

ARGS = ocp.args.StandardSave({"a": 1})
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


def infos(steps: Sequence[int], metrics: Sequence[Any] = ()) -> list[policies.CheckpointInfo]:
    """Checkpoints that were saved a minute after each other, in the order of their steps."""
    padded = [*metrics, *[None] * (len(steps) - len(metrics))]
    return [
        policies.CheckpointInfo(
            step,
            NOW + datetime.timedelta(minutes=number),
            None if value is None else {"m": value},
        )
        for number, (step, value) in enumerate(zip(steps, padded))
    ]


def saved_by(policy: Any, steps: Sequence[int], **context: bool) -> list[int]:
    """What a policy saves of `steps`, which are a minute apart; each save is done by the next."""
    saved: list[policies.CheckpointInfo] = []
    for info in infos(steps):
        if policy.should_save(info, saved, context=policies.DecisionContext(**context)):
            saved.append(info)
    return [info.step for info in saved]


def kept_by(policy: Any, steps: Sequence[int], metrics: Sequence[Any] = ()) -> list[int]:
    now = NOW + datetime.timedelta(minutes=len(steps) - 1)
    context = policies.PreservationContext(now=now)
    kept = policy.should_preserve(infos(steps, metrics), context=context)
    return [step for step, is_kept in zip(steps, kept, strict=True) if is_kept]


@pytest.mark.parametrize(
    "policy, saved",
    [
        (policies.FixedIntervalPolicy(3), [0, 3, 6]),
        (policies.SpecificStepsPolicy([1, 5, -2]), [1, 5]),
        (policies.SpecificStepsPolicy(range(2, 8, 2)), [2, 4, 6]),
        (policies.ContinuousCheckpointingPolicy(), list(range(8))),
        (policies.ContinuousCheckpointingPolicy(minimum_interval_secs=120), [0, 2, 4, 6]),
        (policies.PreemptionCheckpointingPolicy(), []),
        (policies.InitialSavePolicy(), [0]),
        (
            policies.AnySavePolicy(
                [policies.FixedIntervalPolicy(4), policies.SpecificStepsPolicy({5})]
            ),
            [0, 4, 5],
        ),
        (policies.AnySavePolicy([]), []),
    ],
)
def test_a_policy_saves(policy: Any, saved: list[int], tmp_path: pathlib.Path) -> None:
    assert saved_by(policy, range(8)) == saved
    assert isinstance(policy, policies.SaveDecisionPolicy)
    if "minimum" in repr(policy) and policy.minimum_interval_secs:
        return  # A manager saves by the clock.
    options = ocp.CheckpointManagerOptions(
        save_decision_policy=policy, enable_async_checkpointing=False
    )
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        assert [step for step in range(8) if manager.save(step, args=ARGS)] == saved


def test_policies_are_told_of_saves_in_progress_and_of_preemption() -> None:
    continuous = policies.ContinuousCheckpointingPolicy()
    assert saved_by(continuous, [0], is_saving_in_progress=True) == []
    assert saved_by(policies.PreemptionCheckpointingPolicy(), [3], reached_preemption=True) == [3]


METRICS = [0.1, 0.5, None, 0.9, 0.5, float("nan"), 0.2, 0.3]


@pytest.mark.parametrize(
    "policy, kept",
    [
        (policies.PreserveAll(), list(range(8))),
        (policies.LatestN(), list(range(8))),
        (policies.LatestN(3), [5, 6, 7]),
        (policies.LatestN(0), []),
        (policies.EveryNSeconds(150), [0, 3, 6]),
        (policies.EveryNSteps(3), [0, 3, 6]),
        (policies.EveryNSteps(3, max_to_keep=2), [3, 6]),
        (policies.EveryNSteps(5, exact_interval=False), [0, 5]),
        (policies.EveryNStepsClosest(4), [0, 4, 7]),
        (policies.CustomSteps([1, 4, 99]), [1, 4]),
        (policies.LatestDuration(datetime.timedelta(minutes=2)), [5, 6, 7]),
        (
            policies.BestN(get_metric_fn=lambda found: found["m"], n=2, keep_newest=False),
            [2, 3, 4],
        ),
        (policies.BestN(get_metric_fn=lambda found: found["m"], n=2), [2, 3, 4, 7]),
        (
            policies.BestN(
                get_metric_fn=lambda found: found["m"], n=2, reverse=True, keep_newest=False,
                keep_checkpoints_without_metrics=False,
            ),
            [0, 6],
        ),
        (policies.BestN(get_metric_fn=lambda found: found["m"]), list(range(8))),
        (policies.AnyPreservationPolicy([policies.LatestN(1), policies.EveryNSteps(4)]), [0, 4, 7]),
    ],
)
def test_a_policy_keeps(policy: Any, kept: list[int], tmp_path: pathlib.Path) -> None:
    assert kept_by(policy, range(8), METRICS) == kept
    assert isinstance(policy, policies.PreservationPolicy)
    if isinstance(policy, (policies.EveryNSeconds, policies.LatestDuration)):
        return  # A manager goes by the clock.
    options = ocp.CheckpointManagerOptions(preservation_policy=policy)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        for step, value in enumerate(METRICS):
            metrics = None if value is None else {"m": value}
            manager.save(step, args=ARGS, metrics=metrics)
            assert step in manager.all_steps()
        shown = manager.all_steps()
        manager.wait_until_finished()
        # Seven is kept in any case: its own commit never retires it.
        assert shown == manager.all_steps() == sorted({*kept, 7})


@pytest.mark.parametrize(
    "policy",
    [
        policies.FixedIntervalPolicy(0),
        policies.EveryNSteps(0),
        policies.EveryNStepsClosest(-1),
        policies.AnyPreservationPolicy([policies.EveryNSteps(0)]),
    ],
)
def test_an_interval_that_cannot_be_is_refused_when_it_is_used(
    policy: Any, tmp_path: pathlib.Path
) -> None:
    is_for_saving = hasattr(policy, "should_save")
    with pytest.raises(ValueError, match="at least 1"):
        saved_by(policy, [0]) if is_for_saving else kept_by(policy, [0])
    name = "save_decision_policy" if is_for_saving else "preservation_policy"
    with pytest.raises(ValueError, match="at least 1"):
        ocp.CheckpointManager(tmp_path, options=ocp.CheckpointManagerOptions(**{name: policy}))


def test_policies_compare_and_show_their_values() -> None:
    assert policies.LatestN(3) == policies.LatestN(3) != policies.LatestN(4)
    assert repr(policies.EveryNSteps(3)) == (
        "EveryNSteps(interval_steps=3, exact_interval=True, max_to_keep=None)"
    )


# Policies of one's own.


class Odd:
    """Derives from nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[int], bool]] = []

    def should_save(self, step: Any, previous_steps: Any, *, context: Any) -> bool:
        assert step.metrics is None and step.time.tzinfo is not None
        previous = [info.step for info in previous_steps]
        self.asked.append((step.step, previous, context.reached_preemption))
        return bool(step.step % 2)


class NotThree:
    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        assert context.saved_step == max(info.step for info in checkpoints)
        assert all(info.metrics == {"m": info.step} for info in checkpoints)
        assert all(info.time <= context.now for info in checkpoints)
        return [info.step != 3 for info in checkpoints]


def test_policies_of_ones_own_are_asked_and_told_what_there_is_to_know(
    tmp_path: pathlib.Path,
) -> None:
    odd = Odd()
    options = ocp.CheckpointManagerOptions(
        save_decision_policy=odd, preservation_policy=NotThree()
    )
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        for step in range(6):
            manager.save(step, args=ARGS, metrics={"m": step})
        manager.wait_until_finished()
        assert manager.all_steps() == [1, 5]
    assert [asked[0] for asked in odd.asked] == list(range(6))  # Once for each save.
    assert odd.asked[2] == (2, [1], False)


def test_a_class_derived_from_a_policy_decides_for_itself(tmp_path: pathlib.Path) -> None:
    class Never(policies.FixedIntervalPolicy):
        def should_save(self, *args: Any, **kwargs: Any) -> bool:
            return False

    options = ocp.CheckpointManagerOptions(
        save_decision_policy=policies.AnySavePolicy([Never(1), policies.SpecificStepsPolicy([2])])
    )
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        assert [step for step in range(4) if manager.save(step, args=ARGS)] == [2]


class Failure(Exception):
    pass


def fail(*args: Any, **kwargs: Any) -> Any:
    raise Failure("in the policy")


def test_what_a_policy_for_saving_raises_is_raised_by_save(tmp_path: pathlib.Path) -> None:
    class Fails:
        should_save = staticmethod(fail)

    for options in ({"save_decision_policy": Fails()}, {"should_save_fn": fail}):
        made = ocp.CheckpointManagerOptions(**options)
        with ocp.CheckpointManager(tmp_path, options=made) as manager:
            for call in (manager.should_save, lambda step: manager.save(step, args=ARGS)):
                with pytest.raises(Failure, match="in the policy"):
                    call(0)
            assert manager.save(0, args=ARGS, force=True)
            manager.delete(0)


@pytest.mark.parametrize("is_async", [True, False])
def test_what_a_policy_for_keeping_raises_is_raised_and_the_step_is_not_there(
    tmp_path: pathlib.Path, is_async: bool
) -> None:
    class Fails:
        should_preserve = staticmethod(fail)

    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), Fails()]),
        enable_async_checkpointing=is_async,
    )
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        with pytest.raises(Failure, match="in the policy"):
            manager.save(0, args=ARGS)
            manager.wait_until_finished()
        manager.check_for_errors()
        assert manager.all_steps() == []


def test_what_is_no_policy_is_refused(tmp_path: pathlib.Path) -> None:
    for name in ("save_decision_policy", "preservation_policy"):
        options = ocp.CheckpointManagerOptions(**{name: object()})
        with pytest.raises(TypeError, match="policy"):
            ocp.CheckpointManager(tmp_path, options=options)


def test_a_best_fn_that_fails_ranks_nothing_and_says_so(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ocp.CheckpointManagerOptions(best_fn=lambda found: found["loss"], max_to_keep=1)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        manager.save(0, args=ARGS, metrics={"los": 1})
        assert manager.best_step() is None
    assert "KeyError: 'loss'" in caplog.text


def test_the_newest_survives_a_step_that_is_filled_in(tmp_path: pathlib.Path) -> None:
    options = ocp.CheckpointManagerOptions(max_to_keep=1)
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        for step in (10, 5):
            manager.save(step, args=ARGS, force=True)
        assert manager.all_steps() == [5, 10]
        manager.wait_until_finished()
        assert manager.all_steps() == [5, 10]
        manager.save(11, args=ARGS)
        manager.wait_until_finished()
        assert manager.all_steps() == [11]


def test_what_is_shown_while_saves_end_is_what_they_leave(tmp_path: pathlib.Path) -> None:
    all_begun = threading.Event()
    shown: list[list[int]] = []

    def look() -> None:
        # The save is durable, and not over.
        all_begun.wait(60)
        shown.append(manager.all_steps())

    options = ocp.CheckpointManagerOptions(
        max_to_keep=1,
        async_options=ocp.AsyncOptions(post_finalization_callback=look),
        async_queue_size_bytes=1 << 20,
    )
    with ocp.CheckpointManager(tmp_path, options=options) as manager:
        for step in range(4):
            manager.save(step, args=ARGS)
        assert manager.all_steps() == [3]
        all_begun.set()
        manager.wait_until_finished()
    assert shown == [[3]] * 4


def named(metrics: dict[str, float]) -> float:
    """The loss."""
    return metrics["loss"]


def with_more(metrics: dict[str, float], *_: Any) -> float:
    return metrics["loss"]


class Metrics:
    def __call__(self, metrics: dict[str, float]) -> float:
        return metrics["loss"]

    def method(self, metrics: dict[str, float]) -> float:
        return metrics["loss"]


@pytest.mark.parametrize(
    "function, key",
    [
        (lambda found: found["loss"], "loss"),
        (lambda m: m["eval/loss"], "eval/loss"),
        (named, "loss"),
        (operator.itemgetter("loss"), "loss"),
        (operator.itemgetter("a", "b"), None),
        (operator.itemgetter(0), None),
        (lambda found: found[0], None),
        (lambda found: -found["loss"], None),
        (lambda found: found["loss"]["mean"], None),
        (lambda found: found.loss, None),
        (lambda found: METRICS["loss"], None),  # type: ignore[call-overload]
        (lambda found: "loss", None),
        (with_more, "loss"),
        (Metrics(), None),
        (Metrics().method, None),
        (float, None),
    ],
)
def test_what_a_function_ranks_by_is_told_from_its_code(function: Any, key: str | None) -> None:
    assert _policies.metric_key(function) == key
    assert _policies.metric_key(_policies.ranks_like(function)(lambda found: 0)) == key


def test_the_namespaces_of_orbax_are_there() -> None:
    assert policies.save_decision_policy.FixedIntervalPolicy is policies.FixedIntervalPolicy
    assert policies.preservation_policy.LatestN is policies.LatestN
    assert policies.CheckpointManager is ocp.CheckpointManager
    assert policies.CheckpointManagerOptions is ocp.CheckpointManagerOptions
