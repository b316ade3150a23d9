"""The order of events, where a run resumes, what it tells, and what ends it."""

import contextlib
import io
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_smola.errors import Preempted, UserError
from omni_smola.training import loop, optimizer, plan, progress
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.faults.guard import Guard
from omni_smola.training.faults.non_finite import BadSteps
from omni_smola.training.faults.preemption import Preemption
from omni_smola.training.plan import Plan
from omni_smola.training.progress import StepLog
from omni_smola.training.step import TrainState, make_train_step

from .conftest import assert_same, train_config


class Recorder:
    """Everything that the loop calls, by name and step."""

    def __init__(self, losses=None, done=lambda step: True):
        self.done = done
        self.events: list[tuple] = []
        self.scalars: dict[int, dict[str, float]] = {}
        self.scores: dict[int, float] = {}
        self._losses = losses or {}

    def step(self, state, batch):
        assert int(state.step) == int(batch["number"][0])
        self.events.append(("step", int(state.step) + 1))
        loss = self._losses.get(int(state.step) + 1, 1.0)
        metrics = {"loss": loss, "token_accuracy": 0.5, "gradient_norm": 1.0}
        metrics["skipped"] = float(not np.isfinite(loss))
        return TrainState(state.step + 1, state.trainable, None), metrics

    def batches(self, start):
        self.events.append(("open", start))
        return ({"number": np.full(1, n)} for n in itertools.count(start))

    def while_training(self, state):
        self.events.append(("evaluate", int(state.step)))
        return self.scores.get(int(state.step))

    def save(self, state, score=None):
        self.events.append(("save", int(state.step)) + (() if score is None else (score,)))

    def add_score(self, step, score):
        self.events.append(("score", step, score))

    def finish(self, state):
        self.events.append(("finish", int(state.step)))

    def wait(self):
        self.events.append(("wait",))

    def settle(self):
        self.events.append(("settle",))

    def write(self, step, values):
        self.events.append(("write", step))
        self.scalars.setdefault(step, {}).update(values)


def run(recorder, *, start=0, stream=None, limit=2, folder="", preemption=None, **changes):
    stream = stream or io.StringIO()
    options = dict(steps=6, batch_size=4, log_every=100, checkpoint_every=3, eval_every=2)
    plan = Plan(**options | changes)
    return loop.train(
        TrainState(jnp.int32(start), {}, None),
        plan,
        step=recorder.step,
        open_batches=recorder.batches,
        checkpoints=recorder,
        guard=Guard(BadSteps(limit, str(folder), recorder.write, stream), preemption),
        log=StepLog(plan, recorder.write, stream),
        evaluation=recorder,
    )


def without(events, *names):
    return [event for event in events if event[0] not in names]


def test_events_come_in_order():
    recorder = Recorder()
    state = run(recorder)
    assert int(state.step) == 6
    assert without(recorder.events, "write") == [
        ("open", 0),
        ("step", 1),
        ("step", 2),
        ("evaluate", 2),
        ("step", 3),
        ("save", 3),
        ("step", 4),
        ("evaluate", 4),
        ("step", 5),
        ("step", 6),
        ("save", 6),  # the caller evaluates after the last step
        ("finish", 6),
        ("wait",),
    ]


def test_a_loss_is_looked_at_before_its_state_is_kept():
    recorder = Recorder()
    run(recorder, checkpoint_every=1)
    for step in range(1, 7):
        assert recorder.events.index(("write", step)) < recorder.events.index(("save", step))


def test_metrics_are_fetched_after_the_next_step_was_dispatched():
    recorder = Recorder()
    run(recorder, log_every=2, checkpoint_every=100, eval_every=0)
    events = without(recorder.events, "open", "wait", "finish", "save")
    for step in (2, 4):
        assert events.index(("write", step)) > events.index(("step", step + 1))
    assert set(recorder.scalars) == {1, 2, 4, 6}


def test_a_run_goes_on_from_its_step():
    recorder = Recorder()
    run(recorder, start=4)
    assert without(recorder.events, "write") == [
        ("open", 4),
        ("step", 5),
        ("step", 6),
        ("save", 6),
        ("finish", 6),
        ("wait",),
    ]


def test_an_evaluation_that_was_given_up_is_made_up_for():
    """Of the step that is gone on from, where one was due and left no results."""
    for start, wanted in [
        (2, [("evaluate", 2), ("score", 2, 7.0), ("open", 2)]),
        (3, [("open", 3)]),
    ]:
        recorder = Recorder(done=lambda step: False)
        recorder.scores[2] = 7.0
        run(recorder, start=start)
        assert recorder.events[: len(wanted)] == wanted
    for keep_best, wanted in [(True, [("evaluate", 6), ("score", 6, None)]), (False, [])]:
        recorder = Recorder(done=lambda step: False)
        run(recorder, start=6, keep_best=keep_best)
        assert recorder.events == wanted
    for start, done in [(0, False), (2, True)]:  # nothing to evaluate, or evaluated
        recorder = Recorder(done=lambda step, done=done: done)
        run(recorder, start=start)
        assert recorder.events[0] == ("open", start)


def test_hosts_that_agree_to_end_before_the_first_step_make_none():
    class Agreed(Preemption):
        def check(self):
            raise Preempted("SIGTERM")

    recorder = Recorder()
    with pytest.raises(Preempted, match="SIGTERM"), Agreed(100) as preemption:
        run(recorder, start=4, preemption=preemption)
    assert recorder.events == [("open", 4)]


def test_a_finished_run_does_nothing():
    recorder = Recorder()
    for steps in (6, 3):
        assert int(run(recorder, start=6, steps=steps).step) == 6
    assert recorder.events == []


def test_steps_whose_loss_is_no_number_are_counted_and_end_the_run_after_some(tmp_path):
    stream, recorder = io.StringIO(), Recorder({2: np.nan, 4: np.inf, 5: np.nan})
    with pytest.raises(
        UserError, match=r"2 steps in a row, up to step 5, .*loss nan.*_rate"
    ) as end:
        run(recorder, checkpoint_every=1, stream=stream, folder=tmp_path, steps=9)
    told = [line.split("] ")[1] for line in stream.getvalue().splitlines() if "SKIPPED" in line]
    assert [line.split(", nothing")[0] for line in told] == [f"step {n} SKIPPED" for n in (2, 4, 5)]
    assert "loss inf" in told[1] and "(1 in a row, 2 in all)" in told[1]
    skipped = {n: v["skipped_steps"] for n, v in recorder.scalars.items() if "skipped_steps" in v}
    assert skipped == {2: 1.0, 4: 2.0, 5: 3.0}
    path = tmp_path / "bad_batch-step-5.npz"
    assert str(path) in str(end.value)
    with np.load(path) as saved:  # without pickle
        assert int(saved["number"][0]) == 4  # the fifth batch
    assert recorder.events[-1] == ("settle",)


def test_the_step_that_ends_the_run_is_not_waited_for_by_the_device(tmp_path):
    """It is looked at two steps later, and those two are dispatched by then."""
    recorder = Recorder({3: np.nan, 4: np.nan})
    with pytest.raises(UserError, match="up to step 4"):
        run(recorder, checkpoint_every=100, folder=tmp_path, steps=9, eval_every=0)
    assert ("step", 6) in recorder.events and ("step", 7) not in recorder.events


def test_a_bad_batch_changes_nothing_and_the_run_goes_on(toy, tmp_path):
    """Bit for bit as if the step had not been, but for the number of the step."""
    rule, schedule = optimizer.make_optimizer(train_config(name="adamw"), 6)
    batches = [toy.batch() for _ in range(6)]
    good = batches[:3] + batches[4:]
    batches[3]["x"][0, 0, 0] = np.nan

    def fresh():
        trainable = jax.tree.map(jnp.copy, toy.trainable)
        return TrainState(jnp.int32(0), trainable, rule.init(trainable))

    step = jax.jit(make_train_step(toy.assemble, rule, schedule))
    wanted = fresh()
    for batch in good:
        wanted, _ = step(wanted, toy.frozen, batch)
    stream, scalars = io.StringIO(), {}
    write = lambda step, values: scalars.setdefault(step, {}).update(values)  # noqa: E731
    with contextlib.closing(Checkpoints(str(tmp_path), {}, 2)) as checkpoints:
        plan = Plan(steps=6, batch_size=8, log_every=1, checkpoint_every=2)
        found = loop.train(
            fresh(),
            plan,
            step=lambda state, batch: step(state, toy.frozen, batch),
            open_batches=lambda start: iter(batches[start:]),
            checkpoints=checkpoints,
            guard=Guard(BadSteps(2, str(tmp_path), write, stream)),
            log=StepLog(plan, write, stream),
        )
        assert checkpoints.latest() == 6
    assert int(found.step) == 6
    assert_same(found.trainable, wanted.trainable)
    assert_same(found.optimizer, wanted.optimizer)
    assert [n for n, values in scalars.items() if "skipped_steps" in values] == [4]
    assert "step 4 SKIPPED" in stream.getvalue()


def test_evaluated_states_are_saved_with_their_scores_where_the_best_is_kept():
    recorder = Recorder()
    recorder.scores = {2: 0.1, 4: 0.7, 6: 0.5}
    run(recorder, keep_best=True, checkpoint_every=3)
    saves = [event for event in recorder.events if event[0] == "save"]
    assert saves == [("save", 2, 0.1), ("save", 3), ("save", 4, 0.7), ("save", 6, 0.5)]


def test_checkpoints_by_time(monkeypatch):
    seconds = itertools.count(0, 25)  # every look at the clock is 25 s later
    monkeypatch.setattr(plan.time, "monotonic", lambda: next(seconds))
    recorder = Recorder()
    run(recorder, checkpoint_minutes=1.0, checkpoint_every=100, eval_every=0, steps=8)
    assert [event for event in recorder.events if event[0] == "save"] == [
        ("save", 3),
        ("save", 6),
        ("save", 8),
    ]


class Told(Preemption):
    """A Preemption that hears of a signal at a step, or in an evaluation."""

    def __init__(self, step=None, in_evaluation=False):
        super().__init__(1000)
        self._left, self._in_evaluation = step or 0, in_evaluation

    def reached(self):
        self._left -= 1
        return "" if self._left else "SIGTERM"

    @contextlib.contextmanager
    def immediate(self):
        if self._in_evaluation:
            raise Preempted("SIGINT")
        yield


def test_a_run_that_is_told_to_end_saves_the_step_it_is_at():
    recorder = Recorder()
    with pytest.raises(Preempted, match="SIGTERM: saved step 4 of 6"):
        run(recorder, preemption=Told(4), checkpoint_every=100)
    assert without(recorder.events, "write", "open")[-3:] == [
        ("save", 4),
        ("finish", 4),
        ("wait",),
    ]
    assert ("evaluate", 4) not in recorder.events  # what takes long is left out


def test_an_evaluation_is_given_up_for_the_save():
    recorder = Recorder()
    with pytest.raises(Preempted, match="SIGINT: saved step 2 of 6"):
        run(recorder, preemption=Told(in_evaluation=True), checkpoint_every=100)
    assert ("save", 2) in recorder.events and ("step", 3) not in recorder.events


def test_an_error_lets_a_checkpoint_be_finished():
    recorder = Recorder()

    def batches(start):
        yield from itertools.islice(Recorder.batches(recorder, start), 4)
        raise UserError("An image does not decode.")

    recorder.batches = batches
    with pytest.raises(UserError, match="does not decode"):
        run(recorder)
    assert recorder.events[-1] == ("settle",)
    assert ("save", 3) in recorder.events


def test_progress_says_step_loss_speed_and_time_left():
    stream, recorder = io.StringIO(), Recorder()
    run(recorder, log_every=2, stream=stream)
    first, *lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"step 1/6  compiled and ran in [\d.]+ s", first)
    form = (
        r"step (\d)/6  loss 1\.0000  token accuracy 50\.0%  [\d.]+ steps/s  \d+ examples/s  "
        r"\d+:\d\d left"
    )
    assert [int(re.fullmatch(form, line).group(1)) for line in lines] == [2, 3, 4, 6]
    assert recorder.scalars[1].keys() == {"loss", "token_accuracy", "gradient_norm"}
    speeds = {"steps_per_second", "examples_per_second"}
    assert recorder.scalars[6].keys() - recorder.scalars[1].keys() == speeds
    speed = recorder.scalars[6]
    np.testing.assert_allclose(speed["examples_per_second"], 4 * speed["steps_per_second"])


def test_evaluation_does_not_count_as_training(monkeypatch):
    clock = itertools.chain([0, 10, 10], [20, 1020], [1030])  # start, step 1, evaluation, step 3
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    stream = io.StringIO()
    speed = progress.Progress(0, 5, 8, stream)
    values = {"loss": 1.0, "token_accuracy": 0.0}
    speed.line(1, values)
    with speed.paused():
        pass
    assert speed.line(3, values) == {"steps_per_second": 0.1, "examples_per_second": 0.8}
    assert stream.getvalue().splitlines()[-1].endswith("0.10 steps/s  1 examples/s  0:20 left")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3600, "1:00:00")]
)
def test_time_left_is_a_clock(seconds, text):
    assert progress._clock(seconds) == text


def test_no_batch_is_taken_that_no_step_needs():
    """The stream is read as far as the state has come, no further."""
    taken, recorder = [], Recorder()

    def batches(start):
        for number in itertools.count(start):
            taken.append(number)
            yield {"number": np.full(1, number)}

    recorder.batches = batches
    run(recorder, start=2)
    assert taken == [2, 3, 4, 5]
