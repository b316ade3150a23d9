"""What a workdir keeps from one command to the next, and whether it still holds.

The frozen model's scores hold for the examples they were made of, and a run that goes on says so
where its training data are not those it began with.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

from omni_smola.evaluation import evaluator
from omni_smola.run import Run, say
from omni_smola.run_data import vocabulary_file
from omni_smola.step_evaluation import watched
from omni_smola.training import distributed, stages
from omni_smola.training.faults.preemption import Preemption
from omni_smola.training.faults.watchdog import PATIENCE

# Counted up when a metric gives other scores than before, as kept ones then no longer hold.
SCORING = 2
_DATA = "data.json"
# Of config.data and config.eval, what the examples' own digest stands for or training alone reads.
_ELSEWHERE = ("data_dir", "manual_dir", "vocabulary", "sources", "rates", "mixing", "temperature")
_ELSEWHERE += ("cap", "train_split", "every", "baseline", "tasks", "groups")


def evaluated(run: Run) -> str:
    """The digest of all that the frozen model's scores follow from; "" but on the primary host.

    That is the backbone, the examples of every task with their images, the prompts and lengths, the
    vocabulary, the metrics, and the way of decoding.
    """
    if not distributed.is_primary():
        return ""
    from omni_smola.data import identity, tasks
    from omni_smola.data import vocabulary as vocabularies

    config = run.config
    plain = json.loads(config.to_json_best_effort())
    limit, skip = config.eval.examples or None, config.data.on_error == "skip"
    found: list[Any] = [SCORING, run.model.fingerprint, run.model.image_size]
    found += [plain["backbone"] | {"init": ""}, plain["decode"]]
    found += [_less(plain["data"]) | {"frame": run.framing.name}, _less(plain["eval"])]
    found.append(config.seed if config.decode.method == "sample" else None)
    found.append(identity.of_files(vocabulary_file(config) or vocabularies.SHIPPED))
    for row in run.eval_tasks:
        source = tasks.get(row.name).source
        examples = identity.of_examples(source, row.split(config.eval.split), limit, skip)
        found.append([dataclasses.asdict(row) | {"source": ""}, examples])
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def make_evaluator(run: Run) -> evaluator.Evaluator:
    """The evaluator of the config's tasks, which knows what its scores follow from."""
    made = run.make_evaluator()
    with run.watchdog.watching("reading the evaluated examples", PATIENCE):
        made.identity = evaluated(run)
    distributed.barrier("evaluated examples")  # waits longer than a collective would
    return made


def frozen_scores(
    run: Run, evaluate: evaluator.Evaluator, preemption: Preemption | None = None
) -> str | None:
    """The file of the frozen backbone's scores, evaluated anew where what they follow from has
    changed; None without a baseline."""
    if not run.config.eval.baseline:
        return None
    path = os.path.join(run.workdir, "scores", f"frozen-{evaluate.identity}.json")
    if not distributed.agreed(os.path.exists(path)):
        # W_out is zero: with fresh experts the model is the frozen backbone, bit for bit.
        with watched(run, run.model.trainable, preemption) as generate:
            evaluate.run(generate, run.workdir, f"{run.config.eval.split}-frozen", 0)
        evaluate.write_scores(path)
    return path


def note_training_data(run: Run, step: int) -> None:
    """Writes what the run trains on to its workdir; says what of it has changed since it began.

    The run goes on with the data as they are now: a mended label is no reason to start again.

    Args:
      step: at which the run goes on; 0 for a new one, which has nothing to compare.
    """
    if not distributed.is_primary():
        return
    from omni_smola.data import identity, tasks

    split = run.config.data.train_split
    now = {}
    for name in run.rates:
        task = tasks.get(name)
        now[name] = identity.of_training(task.source, task.row.split(split))
    file = os.path.join(run.workdir, _DATA)
    noted = _read(file) if step else []
    for changed in _changed(noted[-1]["tasks"] if noted else {}, now):
        say(
            f"THE TRAINING DATA OF {changed} since step {noted[-1]['step']}: the run goes on at "
            f"step {step} with those that are there now. To train on these alone, start in another "
            "workdir"
        )
    language = run.config.language
    if language.stage_1 or language.stage_1_steps:
        folder = stages.folder(run.config, run.workdir)
        first = _read(os.path.join(folder, _DATA))
        for changed in _changed(first[-1]["tasks"] if first else {}, now):
            say(f"THE TRAINING DATA OF {changed} since the first stage in {folder} was trained")
    if not noted or noted[-1]["tasks"] != now:
        noted.append({"step": step, "tasks": now})
        with open(f"{file}.tmp", "w") as new:
            json.dump(noted, new, indent=2)
        os.replace(f"{file}.tmp", file)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """ "toggles HAVE CHANGED (8 examples, now 9)" of every task that both have and that differs."""
    return [
        f"{name} HAVE CHANGED ({before[name]['examples']:,} examples then, "
        f"{now[name]['examples']:,} now)"
        for name in now
        if name in before and before[name] != now[name]
    ]


def _read(file: str) -> list[dict[str, Any]]:
    """What a workdir says of its data; nothing where it is older, or the file is damaged."""
    try:
        with open(file) as opened:
            noted = json.load(opened)
        return noted if isinstance(noted[-1]["tasks"], dict) and "step" in noted[-1] else []
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _less(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _ELSEWHERE}
