"""The tasks and the vocabulary of a config."""

from collections.abc import Callable
from typing import Any

import ml_collections

from omni_smola import quiet
from omni_smola.config_checks import check_tasks
from omni_smola.errors import UserError
from omni_smola.models import backbones
from omni_smola.pretrained import backbones as public
from omni_smola.training.model import sizes_of


def register_tasks(
    config: ml_collections.ConfigDict,
    vocabulary: Any,
    framing: Any,
    told: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Registers the tasks that a config can name; returns the rates of its mixture.

    Args:
      config: of the run.
      vocabulary: a seqio.Vocabulary.
      framing: see `make_framing`.
      told: of every folder, what is made of it; None for nobody.

    Raises:
      UserError: a mistake in `config.data`.
    """
    from omni_smola.data import mixtures, tasks

    check_tasks(config)
    data = config.data
    tasks.register(
        dict(data.sources),
        data_dir=data.data_dir or None,
        vocabulary=vocabulary,
        manual_dir=data.manual_dir or None,
        on_error=data.on_error,
        prompts=data.prompts,
        ocr=data.ocr,
        max_pixels=data.max_pixels,
        framing=framing,
        told=told,
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
    return str(public.folder(init)) if public.is_public(init) else None


def make_framing(config: ml_collections.ConfigDict, vocabulary: Any) -> Any:
    """The framing of a config's prompts, a `data.framing.Framing`.

    Args:
      config: of the run.
      vocabulary: a seqio.Vocabulary.

    Raises:
      UserError: an unknown backbone or frame, a chat template that fails, a token that the
        vocabulary lacks, or answers too short for what ends them.
    """
    from omni_smola.data import framing

    family, ids = backbones.frame(sizes_of(config.backbone), config.backbone.name)
    init = config.backbone.init
    folder = public.folder(init) if public.is_public(init) else None
    made = framing.load(config.data.frame, vocabulary, family, ids, folder)
    made.check_lengths(config.data.target_length)
    return made


def check_vocabulary(config: ml_collections.ConfigDict, vocabulary: Any, size: int) -> None:
    """Raises UserError for a vocabulary of more pieces than the `size` that are embedded."""
    if vocabulary.vocab_size > size:
        raise UserError(
            f"The vocabulary {config.data.vocabulary or 'of the package'} has "
            f"{vocabulary.vocab_size} pieces, but the backbone {config.backbone.name} embeds "
            f"{size}: choose the vocabulary that the backbone was trained with, by "
            "--config.data.vocabulary."
        )
