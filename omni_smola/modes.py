"""What the command line does: train, eval, predict, routing, data, compile."""

import dataclasses
import functools
import json
import os

import jax
import jax.numpy as jnp
import ml_collections

from omni_smola import config as configs
from omni_smola import kept, programs, refusals, spread
from omni_smola.ahead import report as ahead
from omni_smola.errors import UserError
from omni_smola.evaluation import evaluator, report
from omni_smola.evaluation import routing as routings
from omni_smola.notices import say_adapted
from omni_smola.pretrained import native, tower_files
from omni_smola.run import Run, say
from omni_smola.run_data import load_vocabulary, make_framing, register_tasks
from omni_smola.step_evaluation import StepEvaluation, watched
from omni_smola.training import distributed, loop, sharding, stages
from omni_smola.training import model as models
from omni_smola.training import state as states
from omni_smola.training.faults.guard import Guard
from omni_smola.training.faults.non_finite import BadSteps
from omni_smola.training.faults.preemption import Preemption
from omni_smola.training.faults.watchdog import PATIENCE, Watchdog
from omni_smola.training.faults.workdir import ensure_workdir
from omni_smola.training.logging import ScalarWriter
from omni_smola.training.plan import Plan
from omni_smola.training.progress import StepLog
from omni_smola.training.step import TrainState

NAMES = {
    "smola": "Omni-SMoLA",
    "mome": "MoME",
    "lora": "LoRA",
    "adapter": "adapter",
    "full": "fine-tuned",
}


def train(run: Run, preemption: Preemption | None = None) -> str:
    """Evaluates the frozen backbone, trains, evaluates again; returns the report.

    Raises:
      Preempted: a signal ended the run; what was trained is saved.
    """
    config, model = run.config, run.model
    say_adapted(run)
    state = _newest_state(run)
    kept.note_training_data(run, int(state.step))
    _write_config(run)
    say(
        f"{config.backbone.name}: {states.count(model.frozen):,} frozen parameters, "
        f"{states.count(model.trainable):,} trained ({_method(config)} on "
        f"{len(model.attached)} linears or feed-forwards of every layer)"
    )
    _say_layout(run, state)
    evaluate = kept.make_evaluator(run)
    frozen = kept.frozen_scores(run, evaluate, preemption)
    with ScalarWriter(run.workdir, primary=distributed.is_primary()) as writer:
        evaluation = StepEvaluation(run, evaluate, _label(run), writer.write, preemption)
        state = _steps(run, state, evaluation, writer, preemption)
        evaluation(state)
    run.checkpoints.close()
    run.say_damage()
    if config.export:
        with run.watchdog.watching("writing the export", PATIENCE):
            _export(run, state)
    return _report(run, frozen, evaluation.path(int(state.step)))


def train_first_stage(
    config: ml_collections.ConfigDict,
    workdir: str,
    preemption: Preemption | None = None,
    watchdog: Watchdog | None = None,
) -> None:
    """Trains the stage that a second stage's config asks for, without evaluating it.

    Does nothing for a config of one stage, or where that stage is there already.
    """
    if config.language.stage_1 or not config.language.stage_1_steps:
        return
    run = Run(stages.first_stage(config), stages.folder(config, workdir), watchdog, ("train",))
    if run.checkpoints.latest() != run.config.steps:
        say_adapted(run)
        state = _newest_state(run)
        kept.note_training_data(run, int(state.step))
        _write_config(run)
        say(f"first stage: one adapter, {run.config.steps} steps, in {run.workdir}")
        with ScalarWriter(run.workdir, primary=distributed.is_primary()) as writer:
            _steps(run, state, None, writer, preemption)
    run.checkpoints.close()


def evaluate(run: Run) -> str:
    """Evaluates the workdir's newest checkpoint; returns the report."""
    step, trainable = _trained(run)
    evaluate = kept.make_evaluator(run)
    frozen = kept.frozen_scores(run, evaluate)
    with watched(run, trainable) as generate:
        evaluate.run(generate, run.workdir, _label(run), step)
    tuned = _score_file(run, f"{_label(run)}-{step}")
    evaluate.write_scores(tuned)
    return _report(run, frozen, tuned)


def predict(run: Run, image: str | None, prompt: str) -> str:
    """The answer of the workdir's newest checkpoint, or of the bare backbone if there is none.

    Args:
      image, prompt: as `refusals.check_question` lets them pass.
    """
    from omni_smola.data import ask

    batch = ask.make_batch(
        image,
        prompt,
        framing=run.framing,
        prompt_length=run.framing.width(run.config.data.prompt_length),
        resolution=run.model.image_size,
        max_pixels=run.config.data.max_pixels,
        views=run.model.views,
        instruction=run.instruction,
        rows=run.mesh.shape["data"] * run.mesh.shape["fsdp"],
    )
    trainable = run.model.trainable
    if run.checkpoints.latest() is None:
        say(f"no checkpoint in {run.workdir}: the frozen backbone answers")
    else:
        step, trainable = _trained(run)
        say(f"checkpoint of step {step} answers")
    ids = run.generate(trainable, batch, whole=True)[0]
    return run.framing.text(evaluator.until_eos(ids, run.framing.end_id))


def routing(run: Run) -> str:
    """Draws what the routers of the workdir's newest checkpoint do, family by family."""
    step, trainable = _trained(run)
    rows = routings.measure(
        run.eval_tasks,
        functools.partial(run.eval_batches, whole=True),
        functools.partial(run.shares, trainable),
        run.config.vision.encoders.split("+"),
    )
    files = [os.path.join(run.workdir, "routing", f"step-{step}.{kind}") for kind in ("csv", "png")]
    if distributed.is_primary():
        routings.write_csv(files[0], rows)
        routings.draw(files[1], rows)
    return "\n".join([routings.table(rows), *files])


def inspect_data(config: ml_collections.ConfigDict, workdir: str) -> str:
    """What the config's mixture is made of, and a picture of it; makes no model."""
    refusals.check(config)
    vocabulary = load_vocabulary(config)
    from omni_smola.data import inspect

    framing = make_framing(config, vocabulary)
    rates = register_tasks(config, vocabulary, framing, say)
    summaries = []
    for summary in inspect.summarize(
        rates,
        split=config.data.train_split,
        prompt_length=config.data.prompt_length,
        frame_length=framing.extra,
        target_length=config.data.target_length,
        seed=config.seed,
        skip=config.data.on_error == "skip",
    ):
        say(f"{summary.name}: {summary.size:,} examples")
        summaries.append(summary)
    picture = os.path.join(ensure_workdir(workdir), "data.png")
    inspect.contact_sheet(picture, summaries, config.data.max_pixels)
    cut = [line for summary in summaries for line in summary.cut_lines()]
    return "\n".join([inspect.table(summaries), *cut, picture])


def compile_ahead(config: ml_collections.ConfigDict, workdir: str, topology: str | None) -> str:
    """Compiles training and decoding for a TPU that is not there; returns what they cost.

    Raises:
      UserError: an impossible topology, or what cannot be compiled or does not fit: the report of
        the rest is printed before.
    """
    configs.check(config)
    found = ahead.measure(config, topology, workdir, say)
    table = ahead.table(found)
    if ahead.complaints(found):
        print(table)
        raise UserError(" ".join(ahead.complaints(found)))
    return table


def _newest_state(run: Run) -> TrainState:
    """The state of the newest checkpoint, or step 0."""
    with run.watchdog.watching("reading the newest checkpoint", PATIENCE):
        state = run.fresh_state()
        run.checkpoints.remove_unfinished()
        if run.checkpoints.latest() is not None:
            state = run.checkpoints.restore(state)
            say(f"resuming {run.workdir} at step {int(state.step)}")
    return state


def _steps(
    run: Run,
    state: TrainState,
    evaluation: StepEvaluation | None,
    writer: ScalarWriter,
    preemption: Preemption | None,
) -> TrainState:
    """The training loop, where there is anything to train; without evaluation for None."""
    config, frozen = run.config, run.model.frozen
    if not run.model.trainable:
        return state
    train_step = programs.train_step(config, run.model.assemble, run.optimizer, run.schedule)
    jitted = sharding.jit_train_step(run.mesh, train_step, state)
    plan = Plan.of(config)
    if evaluation is None:
        plan = dataclasses.replace(plan, eval_every=0)
    bad_steps = BadSteps(config.faults.bad_steps, run.workdir, writer.write)
    return loop.train(
        state,
        plan,
        step=lambda state, batch: jitted(state, frozen, sharding.put_batch(run.mesh, batch)),
        open_batches=run.train_batches,
        checkpoints=run.checkpoints,
        guard=Guard(bad_steps, preemption, run.watchdog),
        log=StepLog(plan, writer.write),
        evaluation=evaluation,
    )


# What of a checkpoint's identity decides what its parameters are.
_OF_THE_MODEL = ("backbone", "experts", "vision", "language", "instruction", models.FRAME)


def _trained(run: Run) -> tuple[int, states.Tree]:
    """Step and trained parameters of the newest or the best checkpoint, of this backbone."""
    with run.watchdog.watching("reading a checkpoint", PATIENCE):
        return run.checkpoints.restore_trainable(
            run.model.trainable, _OF_THE_MODEL, run.config.checkpoint.which
        )


def _label(run: Run) -> str:
    """What tells one split's predictions from another's: "test-smola"."""
    return f"{run.config.eval.split}-{_method(run.config)}"


def _say_layout(run: Run, state: TrainState) -> None:
    """What lies where, and how many bytes of it on a device."""
    trees = {"frozen": run.model.frozen, "trained": state.trainable, "optimizer": state.optimizer}
    *lines, total = run.model.layout.table(trees)
    sizes = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    say(f"mesh {sizes}, {jax.process_count()} process{'es' * (jax.process_count() > 1)}")
    for line in [*lines, *spread.table(), total] if run.mesh.size > 1 else [total]:
        say(line)


def _method(config: ml_collections.ConfigDict) -> str:
    """What is trained, in a word: a key of NAMES."""
    return "mome" if config.vision.encoders or config.language.experts else config.experts.method


def _score_file(run: Run, name: str) -> str:
    return os.path.join(run.workdir, "scores", f"{name}.json")


def _report(run: Run, frozen: str | None, tuned: str) -> str:
    """The table of both files of scores, which the primary process has written and reads."""
    if not distributed.is_primary():
        return ""
    places = {
        "checkpoint": os.path.join(run.checkpoints.folder),
        "predictions": os.path.join(run.workdir, "predictions"),
        "scores": os.path.join(run.workdir, "scores"),
        "logs": os.path.join(run.workdir, "logs"),
    }
    tuned_name = NAMES.get(_method(run.config), "bare backbone")
    rows = report.load(frozen, tuned)
    name = os.path.join(run.workdir, "report.md")
    with open(name, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(report.report(rows, places, markdown=True, tuned=tuned_name))
    return report.report(rows, places, tuned=tuned_name)


def _export(run: Run, state: TrainState) -> None:
    """Writes the fully trained backbone, or its tower, to `config.export`, in bfloat16."""
    # The file may be given to others: where things lay on this machine is not theirs to know.
    config = ml_collections.ConfigDict(json.loads(run.config.to_json_best_effort()))
    config.export = config.data.data_dir = config.data.manual_dir = ""
    config.backbone.init = os.path.basename(config.backbone.init)
    metadata = {
        "backbone": run.config.backbone.name,
        "steps": str(int(state.step)),
        "config": json.dumps(config.to_dict()),
    }
    model = run.model.assemble(*distributed.whole((state.trainable, run.model.frozen)))
    if not distributed.is_primary():
        return
    if run.config.export_part == "vision":
        tower_files.save_tower(run.config.export, model.vision, metadata)
    else:
        native.save(run.config.export, model, metadata, jnp.bfloat16)
    say(f"wrote the {run.config.export_part} to {run.config.export}")


def _write_config(run: Run) -> None:
    if not distributed.is_primary():
        return
    with open(os.path.join(run.workdir, "config.json"), "w") as file:
        file.write(run.config.to_json_best_effort(indent=2) + "\n")
