"""Checkpoints come back bit for bit, only where they belong, and only if complete."""

import contextlib
import errno
import io
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from omni_smola.errors import UserError
from omni_smola.training import distributed, sharding
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.step import TrainState

from .conftest import assert_same

IDENTITY = {"backbone": "micro 0123", "experts": {"rank": 4, "visual": 8}, "seed": 0}
RULE = optax.adamw(1e-3)


def make_state(step: int, seed: int = 0) -> TrainState:
    keys = jax.random.split(jax.random.key(seed), 2)
    trainable = {
        "layer": {"experts": {"w_in": jax.random.normal(keys[0], (4, 6))}},
        "scale": jax.random.normal(keys[1], (3,), jnp.bfloat16),
    }
    _, statistics = RULE.update(trainable, RULE.init(trainable), trainable)
    return TrainState(jnp.int32(step), trainable, statistics)


@pytest.fixture
def opened(tmp_path):
    """opened(identity, keep) -> Checkpoints of one workdir, closed at the end."""
    made = []

    def open_(identity=IDENTITY, keep=2) -> Checkpoints:
        made.append(Checkpoints(str(tmp_path), identity, keep))
        return made[-1]

    yield open_
    for checkpoints in made:
        checkpoints.close()


def snapshot(folder) -> dict:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_state_comes_back_bit_for_bit(opened):
    first = opened()
    assert first.latest() is None
    first.save(make_state(5))
    first.save(make_state(10, seed=1))
    first.wait()
    again = opened()
    assert again.latest() == 10
    empty = jax.tree.map(jnp.zeros_like, make_state(0))
    restored = again.restore(empty)
    assert_same(restored, make_state(10, seed=1))
    step, trainable = again.restore_trainable(empty.trainable, ("backbone",))
    assert step == 10
    assert_same(trainable, make_state(10, seed=1).trainable)


def test_the_newest_are_kept_and_none_is_written_twice(opened):
    checkpoints = opened(keep=2)
    for step in (1, 2, 3):
        checkpoints.save(make_state(step))
    checkpoints.wait()
    before = snapshot(checkpoints_folder(checkpoints))
    assert {path.relative_to(checkpoints.folder).parts[0] for path in before} == {"2", "3"}
    checkpoints.save(make_state(3, seed=9))
    checkpoints.wait()
    assert snapshot(checkpoints_folder(checkpoints)) == before


def checkpoints_folder(checkpoints):
    import pathlib

    return pathlib.Path(checkpoints.folder)


def test_a_divided_state_is_restored_to_another_division(opened):
    mesh, other = sharding.make_mesh(2, 2, 2), sharding.make_mesh(1, 4, 2)
    state = make_state(4)
    checkpoints = opened()
    checkpoints.save(jax.device_put(state, sharding.partition_tree(mesh, state)))
    checkpoints.wait()
    places = sharding.partition_tree(other, state)
    empty = jax.device_put(jax.tree.map(jnp.zeros_like, state), places)
    restored = opened().restore(empty)
    assert_same(restored, state)
    w_in = restored.trainable["layer"]["experts"]["w_in"]
    assert w_in.sharding == places.trainable["layer"]["experts"]["w_in"]


def test_a_state_may_be_overwritten_while_it_is_being_written(opened):
    """The next step gets the state's memory, donated to it, before the disk has it all."""
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    tree = {f"w{i}": jnp.full((512, 512), float(i)) for i in range(8)}
    wanted = jax.tree.map(np.array, tree)
    checkpoints = opened()
    checkpoints.save(TrainState(jnp.int32(1), tree, {"count": jnp.int32(1)}))
    for _ in range(20):
        tree = step(tree)
    checkpoints.wait()
    assert float(tree["w0"][0, 0]) == 20
    _, restored = checkpoints.restore_trainable(tree, ("backbone",))
    assert_same(restored, wanted)


@pytest.mark.parametrize(
    ("name", "value"),
    [("backbone", "micro 4567"), ("experts", {"rank": 8, "visual": 8}), ("seed", 1)],
)
def test_a_checkpoint_of_something_else_is_refused(opened, tmp_path, name, value):
    checkpoints = opened()
    checkpoints.save(make_state(5))
    checkpoints.wait()
    before = snapshot(tmp_path)
    other = opened(IDENTITY | {name: value})
    with pytest.raises(UserError) as refused:
        other.restore(make_state(0))
    sentence = str(refused.value)
    assert str(tmp_path / "checkpoints" / "5") in sentence
    assert "another --workdir" in sentence
    if name == "experts":  # the field that differs, not the whole group
        assert "with experts.rank = 4, but this run has experts.rank = 8" in sentence
    else:
        assert f"with {name} = {IDENTITY[name]}, but this run has {name} = {value}" in sentence
    if name == "seed":  # trained experts can be evaluated under another seed of sampling
        assert other.restore_trainable(make_state(0).trainable, ("backbone", "experts"))[0] == 5
    else:
        with pytest.raises(UserError, match=name):
            other.restore_trainable(make_state(0).trainable, ("backbone", "experts"))
    assert snapshot(tmp_path) == before


def test_without_a_checkpoint_the_sentence_says_where_it_was_looked_for(opened, tmp_path):
    with pytest.raises(UserError, match=rf"no checkpoint in {tmp_path}.*train first"):
        opened().restore(make_state(0))
    with pytest.raises(UserError, match="no checkpoint"):
        opened().restore_trainable(make_state(0).trainable, ("backbone",))


def test_what_a_kill_left_half_written_is_not_a_checkpoint(opened, tmp_path):
    checkpoints = opened()
    checkpoints.save(make_state(5))
    checkpoints.wait()
    folder = tmp_path / "checkpoints"
    unfinished = folder / "10.orbax-checkpoint-tmp-0"
    unfinished.mkdir()
    (unfinished / "trainable").mkdir()
    again = opened()
    assert again.latest() == 5
    again.save(make_state(10, seed=1))
    again.wait()
    assert_same(opened().restore(make_state(0)), make_state(10, seed=1))


def test_the_step_is_a_number_of_the_state(opened):
    checkpoints = opened()
    checkpoints.save(make_state(7))
    checkpoints.wait()
    restored = opened().restore(make_state(0))
    assert restored.step.dtype == jnp.int32 and restored.step.shape == ()
    np.testing.assert_array_equal(restored.step, 7)


def damage_a_file(folder, name: str) -> None:
    """Cuts, overwrites or removes part of a checkpoint's folder."""
    largest = max(
        (p for p in (folder / "trainable").rglob("d/*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    data = largest.read_bytes()
    if name == "truncated":
        largest.write_bytes(data[: len(data) // 2])
    elif name == "overwritten":
        middle = len(data) // 2
        largest.write_bytes(data[:middle] + bytes(x ^ 255 for x in data[middle : middle + 9]))
    elif name == "missing":
        largest.unlink()
    elif name == "no arrays":
        shutil.rmtree(folder / "optimizer")
    elif name == "no identity":
        (folder / "identity" / "metadata").write_text('{"backbone": "mic')


DAMAGE = ["truncated", "overwritten", "missing", "no arrays", "no identity"]


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_is_used(opened, tmp_path, name):
    checkpoints = opened(keep=3)
    for step in (5, 10):
        checkpoints.save(make_state(step, seed=step))
    checkpoints.wait()
    folder = tmp_path / "checkpoints"
    damage_a_file(folder / "10", name)
    told = io.StringIO()
    again = Checkpoints(str(tmp_path), IDENTITY, 3, stream=told)
    # Whoever only reads leaves it where it is.
    step, _ = again.restore_trainable(make_state(0).trainable, ("backbone",))
    assert step == (10 if name == "no arrays" else 5) and (folder / "10").is_dir()
    assert_same(again.restore(make_state(0)), make_state(5, seed=5))
    assert {p.name for p in folder.iterdir()} == {"5", "10.corrupt-1"}
    line = told.getvalue().splitlines()[-1]
    assert f"{folder / '10'} is damaged (" in line and "10.corrupt-1, step 5 is used" in line
    # The step is written anew, and the next damage gets a name of its own.
    again.save(make_state(10, seed=10))
    again.wait()
    assert_same(opened().restore(make_state(0)), make_state(10, seed=10))
    damage_a_file(folder / "10", name)
    assert_same(again.restore(make_state(0)), make_state(5, seed=5))
    assert (folder / "10.corrupt-2").is_dir()
    again.close()


def test_the_bits_of_an_array_are_checked(opened, tmp_path):
    """Another array in its place, which no file format would find."""
    checkpoints = opened()
    for step in (5, 10):
        checkpoints.save(make_state(step, seed=step))
    checkpoints.wait()
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder / "10" / "trainable")
    shutil.copytree(folder / "5" / "trainable", folder / "10" / "trainable")
    told = io.StringIO()
    again = Checkpoints(str(tmp_path), IDENTITY, stream=told)
    assert_same(again.restore(make_state(0)), make_state(5, seed=5))
    assert "trainable/layer/experts/w_in does not have the checksum" in told.getvalue()
    again.close()


def test_the_only_checkpoint_is_not_put_aside(opened, tmp_path):
    checkpoints = opened()
    checkpoints.save(make_state(5))
    checkpoints.wait()
    damage_a_file(tmp_path / "checkpoints" / "5", "truncated")
    with pytest.raises(UserError, match=r"checkpoints/5 is damaged .*no other: move it away"):
        opened().restore(make_state(0))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["5"]


def test_the_best_is_kept_and_found(tmp_path):
    with contextlib.closing(Checkpoints(str(tmp_path), IDENTITY, keep=1, keep_best=1)) as kept:
        for step, score in [(1, 0.2), (2, 0.9), (3, None), (4, 0.5), (5, None)]:
            kept.save(make_state(step, seed=step), score)
        kept.wait()
        assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "5"}
    with contextlib.closing(Checkpoints(str(tmp_path), IDENTITY)) as reader:
        empty = make_state(0).trainable
        for which, step in (("latest", 5), ("best", 2)):
            found, trainable = reader.restore_trainable(empty, ("backbone",), which)
            assert found == step
            assert_same(trainable, make_state(step, seed=step).trainable)


def test_a_score_can_be_added_to_what_was_saved_without(tmp_path):
    with contextlib.closing(Checkpoints(str(tmp_path), IDENTITY, keep=1, keep_best=1)) as kept:
        kept.save(make_state(1), None)
        kept.wait()
        kept.add_score(1, None)
        kept.add_score(1, 0.9)
        kept.add_score(1, 0.1)  # it has one
        for step, score in [(2, 0.5), (3, None)]:
            kept.save(make_state(step, seed=step), score)
        kept.wait()
        assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"1", "3"}
    with contextlib.closing(Checkpoints(str(tmp_path), IDENTITY)) as reader:
        step, _ = reader.restore_trainable(make_state(0).trainable, ("backbone",), "best")
        assert step == 1


def test_a_score_that_cannot_be_written_leaves_the_checkpoint_whole(tmp_path, monkeypatch):
    def fills_the_disk(self, folder, args):
        (folder / "metrics").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device")

    told = io.StringIO()
    with contextlib.closing(Checkpoints(str(tmp_path), IDENTITY, stream=told)) as checkpoints:
        checkpoints.save(make_state(1))
        checkpoints.wait()
        before = snapshot(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(ocp.JsonCheckpointHandler, "save", fills_the_disk)
            checkpoints.add_score(1, 0.5)
        assert "THE SCORE OF STEP 1 COULD NOT BE WRITTEN" in told.getvalue()
        assert snapshot(tmp_path) == before and not checkpoints.has_score(1)
        # A kill in between leaves the unfinished one, which no one minds.
        (tmp_path / "checkpoints" / "1" / "metrics.tmp").mkdir()
        (tmp_path / "checkpoints" / "1" / "metrics.tmp" / "metrics").write_text("{")
    with contextlib.closing(Checkpoints(str(tmp_path), IDENTITY)) as again:
        assert_same(again.restore(make_state(0)), make_state(1))
        again.add_score(1, 0.5)
        assert again.has_score(1)


def test_a_run_of_many_that_an_error_ends_asks_no_other_host(opened, monkeypatch):
    def asked(value):
        raise AssertionError("the others are elsewhere")

    def full():
        raise OSError("no space")

    told = []
    checkpoints = opened()
    checkpoints.save(make_state(1))
    checkpoints._manager.wait_until_finished()  # which looks at the number of processes, too
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_count", lambda: 2)
        patch.setattr(checkpoints._commit, "fail", lambda: told.append("failed"))
        patch.setattr(distributed, "failure", asked)
        checkpoints.settle()
        assert told == []
        with pytest.raises(AssertionError, match="elsewhere"):
            checkpoints.wait()
        # Those that wait for its part are told that it does not come.
        patch.setattr(checkpoints._manager, "wait_until_finished", full)
        checkpoints.settle()
        assert told == ["failed"]
    assert opened().latest() == 1


def test_the_second_try_of_a_last_save_keeps_its_score(opened, monkeypatch):
    checkpoints = opened()
    full = checkpoints._manager.save

    def fails_once(*args, **named):
        monkeypatch.setattr(checkpoints._manager, "save", full)
        raise OSError("no space")

    monkeypatch.setattr(checkpoints._manager, "save", fails_once)
    checkpoints.save(make_state(4), 0.5)
    assert checkpoints.latest() is None
    checkpoints.finish(make_state(4))
    assert opened().restore_trainable(make_state(0).trainable, ("backbone",), "best")[0] == 4


def test_without_a_score_there_is_no_best(opened):
    checkpoints = opened()
    checkpoints.save(make_state(1))
    checkpoints.wait()
    with pytest.raises(UserError, match=r"has a score.*eval\.every.*keep_best"):
        checkpoints.restore_trainable(make_state(0).trainable, ("backbone",), "best")


def test_what_a_kill_left_is_removed_by_the_run_that_goes_on(opened, tmp_path):
    checkpoints = opened()
    checkpoints.save(make_state(5))
    checkpoints.wait()
    folder = tmp_path / "checkpoints"
    (folder / "10.orbax-checkpoint-tmp-1" / "trainable").mkdir(parents=True)
    told = io.StringIO()
    with contextlib.closing(Checkpoints(str(tmp_path), IDENTITY, stream=told)) as again:
        again.remove_unfinished()
    assert [p.name for p in folder.iterdir()] == ["5"]
    assert "removed the half-written checkpoint" in told.getvalue()


def test_a_save_that_fails_on_another_host_fails_on_this_one(opened, tmp_path, monkeypatch):
    told = io.StringIO()
    checkpoints = Checkpoints(str(tmp_path), IDENTITY, stream=told)
    checkpoints.save(make_state(5))
    checkpoints.wait()
    others = iter(("", "no space, on host 1") * 2)  # before a save and after it
    monkeypatch.setattr(distributed, "failure", lambda why: next(others))
    # What was complete all the same is kept.
    checkpoints.save(make_state(10))
    checkpoints.wait()
    assert checkpoints.latest() == 10 and told.getvalue() == ""
    checkpoints.save(make_state(15))
    finished = checkpoints._manager.wait_until_finished
    monkeypatch.setattr(
        checkpoints._manager,
        "wait_until_finished",
        lambda: (finished(), shutil.rmtree(tmp_path / "checkpoints" / "15")),
    )
    checkpoints.wait()
    assert "STEP 15 COULD NOT BE WRITTEN" in told.getvalue()
    assert "(no space, on host 1)" in told.getvalue()
    assert "step 10 is safe" in told.getvalue() and checkpoints.latest() == 10
    checkpoints.close()


def test_a_checkpoint_from_before_there_were_frames_ended_prompts_with_eos(opened):
    state = make_state(5)
    checkpoints = opened()
    checkpoints.save(state)
    checkpoints.wait()
    assert int(opened(IDENTITY | {"data.frame": "eos"}).restore(state).step) == 5
    said = r"data.frame = eos, but this run has data.frame = plain: set --config.data.frame=eos, or"
    with pytest.raises(UserError, match=said):
        opened(IDENTITY | {"data.frame": "plain"}).restore(state)
