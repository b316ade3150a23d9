"""One run: mesh, data, model, and what train, eval and predict do with them."""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from omni_smola import config as configs
from omni_smola import programs, quiet
from omni_smola.data import frames
from omni_smola.errors import UserError
from omni_smola.evaluation import evaluator
from omni_smola.models import build
from omni_smola.pretrained import backbones, hub
from omni_smola.training import distributed, optimizer, sharding, stages
from omni_smola.training.checkpoint import Checkpoints
from omni_smola.training.logging import BatchLog
from omni_smola.training.model import identity, make_model
from omni_smola.training.step import TrainState
from omni_smola.training.watchdog import PATIENCE, Watchdog
from omni_smola.training.workdir import ensure_workdir

Batch = dict[str, np.ndarray]


class Run:
    """Everything that a config determines, made at the door so that mistakes show before work."""

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: str, watchdog: Watchdog | None = None
    ):
        configs.check(config)
        frames.check_name(config.data.frame)
        self.config = config
        self.watchdog = watchdog or Watchdog(0)
        self.workdir = ensure_workdir(workdir)
        self.mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
        sharding.check_batch(self.mesh, "batch_size", config.batch_size, config.accumulate)
        sharding.check_batch(self.mesh, "eval.batch_size", config.eval.batch_size)
        programs.decoding(config)  # raises for a mistake
        self.optimizer, self.schedule = optimizer.make_optimizer(config.optimizer, config.steps)
        with distributed.primary_first("weights"):
            _download(config.backbone.init)
        with self.watchdog.watching("making the model", PATIENCE):
            self.model = make_model(config, self.mesh)
        self.vocabulary = _vocabulary(config, self.model.vocabulary)
        self.framing = make_framing(config, self.vocabulary, *self.model.frame)
        self.instruction = _instruction(config)
        if config.export and config.experts.method != "full":
            raise UserError(
                f"config.export is {config.export!r}, but only experts.method=full trains a whole "
                f"backbone, not {config.experts.method!r}: set --config.export= to nothing."
            )
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
        """Registers the tasks of the config with SeqIO and checks that all it names exist."""
        from omni_smola.data import tasks

        with distributed.primary_first("data"):
            self.rates = register_tasks(self.config, self.vocabulary, self.framing)
            names = self.config.eval.tasks.split("+") if self.config.eval.tasks else [*self.rates]
            rows = [tasks.get(name).row for name in names]
            if jax.process_count() > 1:
                self._prepare(rows)
        if self.config.eval.groups == "mome":
            rows = [dataclasses.replace(row, group=row.mome or row.group) for row in rows]
        self.eval_tasks = rows

    def _prepare(self, rows: Sequence[Any]) -> None:
        """Has all data made that this config reads, which else happens when it is first read."""
        from omni_smola.data import tasks

        for name in self.rates:
            task = tasks.get(name)
            task.source.num_input_examples(task.row.split(self.config.data.train_split))
        for row in rows:
            tasks.get(row.name).source.num_input_examples(row.split(self.config.eval.split))

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
            self._damage = Damage(tell)  # every host reads a share of its own
        return self._damage

    def say_damage(self) -> None:
        """Tells how many damaged examples every host left out, if there were any."""
        if self.damage is None:
            return
        told = [text.decode() for text in distributed.gather_bytes(self.damage.summary().encode())]
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
    for part in init.split("+"):
        if part.startswith(hub.SCHEME):
            hub.resolve(part)


def _instruction(config: ml_collections.ConfigDict) -> Any:
    """The tokenizer of the encoder of instructions; None where there is no such encoder."""
    if not config.instruction.encoder:
        return None
    from omni_smola.data import instruction

    return instruction.load(config.instruction.encoder, config.instruction.length)


def make_framing(
    config: ml_collections.ConfigDict, vocabulary: Any, family: str, ids: Mapping[str, int]
) -> Any:
    """The framing of a config's prompts, a `data.framing.Framing`.

    Args:
      config: of the run.
      vocabulary: a seqio.Vocabulary.
      family, ids: see `models.backbones.frame`.

    Raises:
      UserError: an unknown frame, a chat template that fails, a token that the vocabulary lacks, or
        answers too short for what ends them.
    """
    from omni_smola.data import framing

    init = config.backbone.init
    folder = backbones.folder(init) if backbones.is_public(init) else None
    made = framing.load(config.data.frame, vocabulary, family, ids, folder)
    made.check_lengths(config.data.target_length)
    return made


def register_tasks(
    config: ml_collections.ConfigDict, vocabulary: Any, framing: Any
) -> dict[str, float]:
    """Registers the tasks that a config can name; returns the rates of its mixture.

    Args:
      config: of the run.
      vocabulary: a seqio.Vocabulary. framing: see `make_framing`.

    Raises:
      UserError: a mistake in `config.data`.
    """
    from omni_smola.data import mixtures, tasks

    data = config.data
    tasks.register(
        dict(data.sources),
        data_dir=data.data_dir or None,
        vocabulary=vocabulary,
        manual_dir=data.manual_dir or None,
        on_error=data.on_error,
        prompts=data.prompts,
        ocr=data.ocr,
        framing=framing,
    )
    rates = mixtures.resolve(dict(data.rates))
    return mixtures.weighted(rates, data.train_split, data.mixing, data.temperature, data.cap)


def load_vocabulary(config: ml_collections.ConfigDict) -> Any:
    """The vocabulary of a config, a seqio.Vocabulary."""
    with quiet.starting():
        from omni_smola.data import sources
        from omni_smola.data import vocabulary as vocabularies

        sources.keep_off_accelerators()
    return vocabularies.load(vocabulary_file(config))


def vocabulary_file(config: ml_collections.ConfigDict) -> str | None:
    """The config's file or folder, else that of its public checkpoint; None for the package's."""
    if config.data.vocabulary:
        return config.data.vocabulary
    init = config.backbone.init
    return str(backbones.folder(init)) if backbones.is_public(init) else None


def _vocabulary(config: ml_collections.ConfigDict, size: int) -> Any:
    vocabulary = load_vocabulary(config)
    if vocabulary.vocab_size > size:
        raise UserError(
            f"The vocabulary {config.data.vocabulary or 'of the package'} has "
            f"{vocabulary.vocab_size} pieces, but the backbone {config.backbone.name} embeds "
            f"{size}: choose the vocabulary that the backbone was trained with, by "
            "--config.data.vocabulary."
        )
    return vocabulary


def say(text: str) -> None:
    """Tells the user what happens, once for all hosts."""
    if distributed.is_primary():
        tell(text)


def tell(text: str) -> None:
    """Tells the user what happens on this host."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
