"""One run: mesh, data, model, and what train, eval and predict do with them."""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from omni_smola import programs, refusals
from omni_smola.config_arguments import split_list
from omni_smola.errors import UserError
from omni_smola.evaluation import evaluator
from omni_smola.models import build
from omni_smola.pretrained import backbones, hub
from omni_smola.run_data import (
    check_vocabulary,
    load_vocabulary,
    make_framing,
    register_tasks,
)
from omni_smola.training import distributed, optimizer, sharding, stages
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.faults.watchdog import PATIENCE, Watchdog
from omni_smola.training.faults.workdir import ensure_workdir
from omni_smola.training.logging import BatchLog
from omni_smola.training.model import check_backbone, identity, make_model
from omni_smola.training.step import TrainState

Batch = dict[str, np.ndarray]


class Run:
    """Everything that a config determines, made at the door so that mistakes show before work."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str,
        watchdog: Watchdog | None = None,
        reads: Sequence[str] = ("train", "eval"),
    ):
        """Checks the settings, then the data, then makes the folder, then the model.

        Args:
          workdir: the run's folder.
          watchdog: watches what may hang; None for one that does not.
          reads: of which splits examples are read: "train" (config.data.train_split), "eval"
            (config.eval.split); none of them where no task is needed.

        Raises:
          UserError: a mistake in the config, the data, the weights or a checkpoint.
        """
        refusals.check_settings(config)
        self.config = config
        self.watchdog = watchdog or Watchdog(0)
        self.mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
        sharding.check_batch(self.mesh, "batch_size", config.batch_size, config.accumulate)
        sharding.check_batch(self.mesh, "eval.batch_size", config.eval.batch_size)
        self.optimizer, self.schedule = optimizer.make_optimizer(config.optimizer, config.steps)
        with distributed.primary_first("weights"):
            _download(config.backbone.init)
        check_backbone(config.backbone)
        self.vocabulary = load_vocabulary(config)
        self.framing = make_framing(config, self.vocabulary)
        self._reads = reads
        if reads:
            self.register_tasks()
        self.workdir = ensure_workdir(workdir)
        with self.watchdog.watching("making the model", PATIENCE):
            self.model = make_model(config, self.mesh)
        check_vocabulary(config, self.vocabulary, self.model.vocabulary)
        self.instruction = _instruction(config)
        self.checkpoints = Checkpoints(
            self.workdir,
            identity(config, self.model.fingerprint, self.framing.name),
            config.checkpoint.keep,
            config.checkpoint.keep_best,
        )
        self._damage = None

    def fresh_state(self) -> TrainState:
        """Step 0: the experts as attached, or as an earlier stage left them; an empty optimiser."""
        trainable = self.model.trainable
        if self.config.language.stage_1 or self.config.language.stage_1_steps:
            folder = stages.folder(self.config, self.workdir)
            trainable = stages.start(self.config, self.mesh, folder, self.model)
        shapes = jax.eval_shape(self.optimizer.init, trainable)
        place = self.model.layout.tree(shapes)
        opt_state = jax.jit(self.optimizer.init, out_shardings=place)(trainable)
        step = sharding.put(np.int32(0), self.model.layout.place("step", ()))
        return TrainState(step, trainable, opt_state)

    def register_tasks(self) -> None:
        """Registers the tasks of the config with SeqIO and checks that all it names exist.

        On many hosts all data is made here that this run reads, which else could happen later.
        """
        from omni_smola.data import tasks

        told = say if "eval" in self._reads else None
        with distributed.primary_first("data"):
            self.rates = register_tasks(self.config, self.vocabulary, self.framing, told)
            names = split_list(self.config.eval.tasks) or [*self.rates]
            if len(set(names)) < len(names):
                raise UserError(
                    f"config.eval.tasks, {self.config.eval.tasks}, names a task twice: name each "
                    "once."
                )
            rows = [tasks.get(name).row for name in names]
            self._check_splits(rows)
        if self.config.eval.groups == "mome":
            rows = [dataclasses.replace(row, group=row.mome or row.group) for row in rows]
        self.eval_tasks = rows

    def _check_splits(self, rows: Sequence[Any]) -> None:
        """Raises UserError for a split that is read and not there; tells of short ones."""
        from omni_smola.data import tasks

        config = self.config
        for name in self.rates if "train" in self._reads and config.steps else ():
            task = tasks.get(name)
            task.source.num_input_examples(task.row.split(config.data.train_split))
        for row in rows if "eval" in self._reads else ():
            split = row.split(config.eval.split)
            size = tasks.get(row.name).source.num_input_examples(split)
            if size < config.eval.examples:
                say(
                    f"{row.name}: {config.eval.examples} examples asked for (eval.examples), the "
                    f"split '{split}' has {size}"
                )

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """This host's endless stream of batches from a step on."""
        from omni_smola.data import pipeline

        data = self.config.data
        host_index, host_count = sharding.share(self.mesh)
        batches = pipeline.train_batches(
            self.rates,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            start_step=start_step,
            split=data.train_split,
            host_index=host_index,
            host_count=host_count,
            prompt_length=self.framing.width(data.prompt_length),
            target_length=data.target_length,
            resolution=self.model.image_size,
            views=self.model.views,
            instruction=self.instruction,
            damage=self.damage,
            max_pixels=data.max_pixels,
        )
        if not self.config.faults.log_batches:
            return batches
        log = BatchLog(self.workdir, jax.process_index(), host_index)
        return log.written(batches, start_step)

    @property
    def damage(self) -> Any:
        """The damaged examples left out so far, a `data.damage.Damage`; None where data.on_error is
        fail."""
        from omni_smola.data.damage import Damage

        if self._damage is None and self.config.data.on_error == "skip":
            # Every host reads a share of its own.
            self._damage = Damage(tell, self.config.data.max_pixels)
        return self._damage

    def say_damage(self) -> None:
        """Tells how many damaged examples every host left out, if there were any."""
        if self.damage is None:
            return
        summary = self.damage.summary().encode(errors="backslashreplace")
        told = [text.decode() for text in distributed.gather_bytes(summary)]
        for host, text in enumerate(told):
            if text:
                say(f"host {host} {text}" if len(told) > 1 else text)

    def eval_batches(self, task: str, *, whole: bool = False) -> Iterator:
        """One pass over this host's share of a task's held-out examples, or over all of them:
        (batch, examples)."""
        from omni_smola.data import pipeline

        config = self.config
        host_index, host_count = (0, 1) if whole else sharding.share(self.mesh)
        return pipeline.eval_batches(
            task,
            config.eval.split,
            batch_size=config.eval.batch_size,
            prompt_length=self.framing.width(config.data.prompt_length),
            target_length=config.data.target_length,
            resolution=self.model.image_size,
            views=self.model.views,
            instruction=self.instruction,
            limit=config.eval.examples or None,
            host_index=host_index,
            host_count=host_count,
            damage=self.damage,
            max_pixels=config.data.max_pixels,
        )

    def make_evaluator(self) -> evaluator.Evaluator:
        """Evaluates the config's tasks on held-out examples."""
        return evaluator.Evaluator(
            self.eval_tasks,
            self.eval_batches,
            self.framing.text,
            eos_id=self.framing.end_id,
            primary=distributed.is_primary(),
            gather=self._gather,
        )

    def _gather(self, told: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """What the hosts have of every batch, one after the other."""
        index, _ = sharding.share(self.mesh)
        every = distributed.gather_bytes(json.dumps([index, told]).encode())
        # Hosts that share their rows say the same.
        parts = dict(map(json.loads, every))
        batches = zip(*(parts[i] for i in sorted(parts)), strict=True)
        return [record for batch in batches for part in batch for record in part]

    @functools.cached_property
    def _generate(self) -> Callable[..., jax.Array]:
        answer = programs.answer(self.config, self.model.assemble, self.framing.end_id)
        return programs.jit_answer(self.mesh, answer)

    @functools.cached_property
    def _key(self) -> Callable[[jax.Array], jax.Array]:
        def key(prompt: jax.Array) -> jax.Array:
            noise = jnp.sum(prompt, dtype=jnp.uint32) & 0x7FFFFFFF
            return jax.random.fold_in(jax.random.key(self.config.seed), noise)

        return jax.jit(key, out_shardings=self._whole)

    def generate(self, trainable: Any, batch: Batch, *, whole: bool = False) -> np.ndarray:
        """This host's share of a batch, or all of it -> ids (b, target_length) int32 of its rows,
        generated with the given experts."""
        with self.watchdog.watching("decoding a batch", PATIENCE):
            placed = self._placed(batch, whole)
            # Sampling noise hangs on the seed and the batch's prompts, not on the order of calls.
            key = self._key(placed["prompt"])
            ids = np.asarray(self._generate(trainable, self.model.frozen, placed, key))
        return ids if whole else ids[sharding.own_rows(self.mesh, len(ids))]

    @functools.cached_property
    def _shares(self) -> Callable[..., dict[str, jax.Array]]:
        def shares(trainable: Any, frozen: Any, batch: Any) -> dict[str, jax.Array]:
            return build.routing_shares(self.model.assemble(trainable, frozen), batch)

        return jax.jit(shares, out_shardings=self._whole)

    def shares(self, trainable: Any, batch: Batch) -> dict[str, np.ndarray]:
        """What the routers of vision and language experts do with a whole batch (`build`)."""
        with self.watchdog.watching("the routers of a batch", PATIENCE):
            placed = self._placed(batch, True)
            return jax.device_get(self._shares(trainable, self.model.frozen, placed))

    def _placed(self, batch: Batch, whole: bool) -> dict[str, jax.Array]:
        read = {name: x for name, x in batch.items() if name not in programs.ANSWERS}
        return sharding.put_batch(self.mesh, read, whole=whole)

    @property
    def _whole(self) -> NamedSharding:
        """What every host reads lies whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec())


def _download(init: str) -> None:
    """Fetches a public checkpoint; what lies on this machine is left to those who read it."""
    for part in backbones.parts(init):
        if part.startswith(hub.SCHEME):
            hub.resolve(part)


def _instruction(config: ml_collections.ConfigDict) -> Any:
    """The tokenizer of the encoder of instructions; None where there is no such encoder."""
    if not config.instruction.encoder:
        return None
    from omni_smola.data import instruction

    return instruction.load(config.instruction.encoder, config.instruction.length)


def say(text: str) -> None:
    """Tells the user what happens, once for all hosts."""
    if distributed.is_primary():
        tell(text)


def tell(text: str) -> None:
    """Tells the user what happens on this host."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
