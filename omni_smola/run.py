"""One run: mesh, data, model, and what train, eval and predict do with them."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from omni_smola import config as configs
from omni_smola import quiet
from omni_smola.errors import UserError
from omni_smola.evaluation import decode as decoding
from omni_smola.evaluation import evaluator
from omni_smola.models import build
from omni_smola.pretrained import backbones
from omni_smola.training import optimizer, sharding, stages
from omni_smola.training.checkpoint import Checkpoints, ensure_workdir
from omni_smola.training.model import identity, make_model
from omni_smola.training.step import TrainState

Batch = dict[str, np.ndarray]
# Fields of a batch that say what is wanted of the model, or of which rows.
_ANSWERS = ("target", "target_mask", "task", "example_mask")


class Run:
    """Everything that a config determines, made at the door so that mistakes show before work."""

    def __init__(self, config: ml_collections.ConfigDict, workdir: str):
        configs.check(config)
        self.config = config
        self.workdir = ensure_workdir(workdir)
        self.mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
        sharding.check_batch(self.mesh, "batch_size", config.batch_size, config.accumulate)
        sharding.check_batch(self.mesh, "eval.batch_size", config.eval.batch_size)
        self.decoding = _decoding(config)
        self.optimizer, self.schedule = optimizer.make_optimizer(config.optimizer, config.steps)
        self.model = make_model(config, self.mesh)
        self.vocabulary = _vocabulary(config, self.model.vocabulary)
        self.instruction = _instruction(config)
        if config.export and config.experts.method != "full":
            raise UserError(
                f"config.export is {config.export!r}, but only experts.method=full trains a whole "
                f"backbone, not {config.experts.method!r}: set --config.export= to nothing."
            )
        self.checkpoints = Checkpoints(
            self.workdir, identity(config, self.model.fingerprint), config.checkpoint.keep
        )

    def fresh_state(self) -> TrainState:
        """Step 0: the experts as attached, or as an earlier stage left them; an empty optimiser."""
        trainable = self.model.trainable
        if self.config.language.stage_1 or self.config.language.stage_1_steps:
            folder = stages.folder(self.config, self.workdir)
            trainable = stages.start(self.config, self.mesh, folder, self.model)
        shapes = jax.eval_shape(self.optimizer.init, trainable)
        place = sharding.partition_tree(self.mesh, shapes)
        opt_state = jax.jit(self.optimizer.init, out_shardings=place)(trainable)
        step = jax.device_put(jnp.zeros((), jnp.int32), sharding.partition(self.mesh, "step", ()))
        return TrainState(step, trainable, opt_state)

    def register_tasks(self) -> None:
        """Registers the tasks of the config with SeqIO and checks that all it names exist."""
        from omni_smola.data import tasks

        self.rates = register_tasks(self.config, self.vocabulary)
        names = self.config.eval.tasks.split("+") if self.config.eval.tasks else list(self.rates)
        rows = [tasks.get(name).row for name in names]
        if self.config.eval.groups == "mome":
            rows = [dataclasses.replace(row, group=row.mome or row.group) for row in rows]
        self.eval_tasks = rows

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """This host's endless stream of batches from a step on."""
        from omni_smola.data import pipeline

        data = self.config.data
        return pipeline.train_batches(
            self.rates,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            start_step=start_step,
            split=data.train_split,
            host_index=jax.process_index(),
            host_count=jax.process_count(),
            prompt_length=data.prompt_length,
            target_length=data.target_length,
            resolution=self.model.image_size,
            views=self.model.views,
            instruction=self.instruction,
        )

    def eval_batches(self, task: str) -> Iterator:
        """One pass over the held-out examples of a task: (batch, examples)."""
        from omni_smola.data import pipeline

        config = self.config
        return pipeline.eval_batches(
            task,
            config.eval.split,
            batch_size=config.eval.batch_size,
            prompt_length=config.data.prompt_length,
            target_length=config.data.target_length,
            resolution=self.model.image_size,
            views=self.model.views,
            instruction=self.instruction,
            limit=config.eval.examples or None,
        )

    def make_evaluator(self) -> evaluator.Evaluator:
        """Evaluates the config's tasks on held-out examples."""
        return evaluator.Evaluator(
            self.eval_tasks,
            self.eval_batches,
            self.vocabulary.decode,
            eos_id=self.vocabulary.eos_id,
            primary=jax.process_index() == 0,
        )

    @functools.cached_property
    def _generate(self) -> Callable[..., jax.Array]:
        length = self.config.data.target_length

        def generate(trainable: Any, frozen: Any, batch: Any, key: jax.Array) -> jax.Array:
            model = self.model.assemble(trainable, frozen)
            cache = model.init_cache(batch, length)
            size = batch["prompt"].shape[0]
            return decoding.decode(
                model.step, cache, size, length, self.decoding, key, self.vocabulary.eos_id
            )

        return jax.jit(generate)

    def generate(self, trainable: Any, batch: Batch) -> np.ndarray:
        """Batch -> generated ids (b, target_length) int32, with the given experts."""
        # Sampling noise hangs on the seed and on the batch's prompts, not on the order of calls.
        key = jax.random.fold_in(
            jax.random.key(self.config.seed), int(np.sum(batch["prompt"], dtype=np.int64) % 2**31)
        )
        return np.asarray(self._generate(trainable, self.model.frozen, self._placed(batch), key))

    @functools.cached_property
    def _shares(self) -> Callable[..., dict[str, jax.Array]]:
        def shares(trainable: Any, frozen: Any, batch: Any) -> dict[str, jax.Array]:
            return build.routing_shares(self.model.assemble(trainable, frozen), batch)

        return jax.jit(shares)

    def shares(self, trainable: Any, batch: Batch) -> dict[str, np.ndarray]:
        """What the routers of vision and language experts do with a batch (`build`)."""
        return jax.device_get(self._shares(trainable, self.model.frozen, self._placed(batch)))

    def _placed(self, batch: Batch) -> dict[str, jax.Array]:
        return sharding.put_batch(
            self.mesh, {name: x for name, x in batch.items() if name not in _ANSWERS}
        )


def _decoding(config: ml_collections.ConfigDict) -> decoding.Decoding:
    return decoding.Decoding(**config.decode.to_dict(), seed=config.seed)


def _instruction(config: ml_collections.ConfigDict) -> Any:
    """The tokenizer of the encoder of instructions; None where there is no such encoder."""
    if not config.instruction.encoder:
        return None
    from omni_smola.data import instruction

    return instruction.load(config.instruction.encoder, config.instruction.length)


def register_tasks(config: ml_collections.ConfigDict, vocabulary: Any) -> dict[str, float]:
    """Registers the tasks that a config can name; returns the rates of its mixture.

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
    if jax.process_index() == 0:
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
