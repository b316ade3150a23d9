"""The mini suite: a small vision-language suite that is generated, not downloaded.

Seven families for tuning experts and five configs for pretraining the small backbone and
encoders, 96 x 96 pixels. It is made of what Python packages carry:

  easy-vqa (MIT)            5,000 images of one coloured shape, 48,248 questions; its shapes are
                            also cut out and set into the scenes of captions, counts and boxes
  scikit-learn (BSD-3)      1,797 real handwritten digits; the tables iris, wine, breast cancer,
                            diabetes and linnerud; the descriptions of its data sets
  vega-datasets (MIT)       the tables cars, Seattle weather, barley, airports, stocks, US
                            employment, Crimea deaths, Iowa electricity, driving, wheat
  Python (PSF licence)      the help topics of pydoc, as English prose
  Pillow (MIT-CMU)          its bitmap font, for all text
  ourselves                 a grammar of everyday sentences (everyday.py)

Hold-out: the test splits use easy-vqa's test images only, and digits and table rows that no other
split uses; validation likewise; pretraining uses ingredients of the training side, and a few of
its own for validation. Example i of a split is a pure function of (config, split, i).
"""

import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from omni_smola.data.builders.mini_suite import families
from omni_smola.data.builders.mini_suite.records import Record
from omni_smola.errors import UserError


class MiniSuite(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the mini suite; one config per family (families.FAMILIES).

    Features: the common record. `image` is a vector of 0 or 1 encoded PNGs, not decoded by TFDS.
    """

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES = {
        "1.0.0": "First version.",
        "1.1.0": "Larger objects in the box config.",
        "1.2.0": "Everyday English in the pretrain_text config.",
    }
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=family.description)
        for name, family in families.FAMILIES.items()
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        texts = tfds.features.Tensor(shape=(None,), dtype=np.object_)
        return self.dataset_info_from_configs(
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Tensor(shape=(), dtype=np.object_),
                    "image": texts,
                    "question": tfds.features.Tensor(shape=(), dtype=np.object_),
                    "choices": texts,
                    "references": texts,
                    "answer_index": tfds.features.Scalar(np.int32),
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                }
            ),
            # Record i on disk is example i.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        sizes = families.FAMILIES[self.builder_config.name].sizes
        return {split: self._generate_examples(split, size) for split, size in sizes.items()}

    def _generate_examples(self, split: str, size: int) -> Iterator[tuple[int, Record]]:
        for index in range(size):
            yield index, families.example(self.builder_config.name, split, index)

    # TFDS would announce a download of unknown size on stdout.
    def _log_download_bytes(self) -> None:
        logging.info("Generating mini_suite/%s under %s", self.builder_config.name, self.data_dir)

    def _log_download_done(self) -> None:
        logging.info("mini_suite/%s is ready", self.builder_config.name)


def prepare(config_name: str, data_dir: str | os.PathLike) -> tfds.core.DatasetBuilder:
    """Makes sure that a config is prepared under `data_dir`, as array_record files.

    Several processes may prepare the same config at once: TFDS writes elsewhere and renames.

    Args:
      config_name: one of families.FAMILIES.
      data_dir: the TFDS data directory; made if it does not exist.

    Returns:
      The builder, ready for `as_data_source(split)`.

    Raises:
      UserError: there is no such config, or nothing can be written under `data_dir`.
    """
    if config_name not in families.FAMILIES:
        names = ", ".join(families.FAMILIES)
        raise UserError(f"mini_suite has no config '{config_name}'; it has {names}.")
    directory = pathlib.Path(data_dir).expanduser()

    def build() -> MiniSuite:
        return MiniSuite(config=config_name, data_dir=str(directory), file_format="array_record")

    try:
        builder = build()
        if not builder.is_prepared():
            print(f"preparing {builder.info.full_name} in {directory}", file=sys.stderr, flush=True)
            if not sys.stderr.isatty():
                tfds.disable_progress_bar()
        builder.download_and_prepare(file_format="array_record")
    except (OSError, tf.errors.OpError) as error:
        builder = build()
        if not builder.is_prepared():  # it is, where another process has been faster
            raise UserError(
                f"mini_suite/{config_name} cannot be prepared under '{directory}' ({error}); "
                "choose a data directory that you may write to."
            ) from error
    return builder
