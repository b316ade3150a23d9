"""Settings of every test, made before anything imports JAX: eight CPU devices, quiet TensorFlow.

Programs are compiled without most optimisations, and by XLA's older emitters: a test runs each but
a few times, and compiling would take most of the suite's time. The fixture `optimized` switches the
optimisations on; the command line, in processes of its own, compiles as users' runs do, but where a
test asks for QUICKLY.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import filelock
import pytest

from . import forks, xla_flags

QUICK_FLAGS = xla_flags.quick()

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join(
        [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", QUICK_FLAGS]
    ).strip()

ROOT = pathlib.Path(__file__).parent.parent


def pytest_xdist_auto_num_workers(config) -> int:
    """How many workers `-n auto`, which pyproject.toml sets, stands for: one a core, at most four.

    None where one file is run: its tests would all be one worker's. With eight devices each, more
    workers take more memory than time.
    """
    files = {argument.split("::")[0] for argument in config.args}
    if len(files) == 1 and pathlib.Path(*files).is_file():
        return 0
    return min(4, len(os.sched_getaffinity(0)))


@contextlib.contextmanager
def compiled_as_for_users():
    """Compiles what is compiled inside as a user's run does."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def optimized():
    """Compiles what the test compiles as a user's run does."""
    with compiled_as_for_users():
        yield


@pytest.fixture(scope="module")
def users_compiler():
    """The context manager `compiled_as_for_users`, for fixtures that are shared."""
    return compiled_as_for_users


def pytest_collection_modifyitems(items):
    """Files with slow tests first: at the end, no worker waits for the other's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Folder of real records beside the project; the test is skipped where it is absent."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the real records of ../shared, which lie beside the checkout")
    return path


# The smallest run that does all that a run does; the tests of the command line share it.
MICRO_STEPS = 40
MICRO_TASKS = ("mini_count", "mini_choice")
MICRO_RUN = (
    f"--config=configs/pali_smola.py:experts=2-2-2,rank=2,tasks={'+'.join(MICRO_TASKS)}",
    "--config.backbone.init=random",
    "--config.backbone.resolution=24",
    f"--config.steps={MICRO_STEPS}",
    "--config.batch_size=4",
    "--config.log_every=5",
    "--config.optimizer.warmup=2",
    "--config.checkpoint.every=5",
    "--config.eval.examples=4",
    "--config.eval.batch_size=4",
)


# Has a process compile as the tests do: where what it computes is not compared with users' runs.
QUICKLY = MappingProxyType(
    {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": QUICK_FLAGS,
    }
)


class Command:
    """`python -m omni_smola.main` in processes of their own, on one device as on a laptop.

    They share the mini suite's files and a cache of compiled programs. All but those of `fresh` are
    forks of one that has done the imports.
    """

    def __init__(self, data: pathlib.Path, cache: pathlib.Path, socket: pathlib.Path):
        self._socket, self._server = socket, None
        self._lock = threading.Lock()
        env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        self._env = env | {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "TFDS_DATA_DIR": str(data),
            "PYTHONFAULTHANDLER": "1",  # SIGABRT tells where a process hangs
        }
        # What the program itself makes of these is tested.
        for name in ("TF_CPP_MIN_LOG_LEVEL", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
            del self._env[name]

    def __call__(
        self, *arguments: str, env: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess:
        """Runs to the end; see `start`."""
        return self._ended(self.start(*arguments, stdout=subprocess.PIPE, env=env), arguments)

    def fresh(self, *arguments: str) -> subprocess.CompletedProcess:
        """The same, imports included."""
        process = subprocess.Popen(
            [sys.executable, "-m", "omni_smola.main", *arguments],
            cwd=ROOT,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self._ended(process, arguments)

    def start(
        self,
        *arguments: str,
        stdout: int = subprocess.DEVNULL,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> forks.Fork:
        """Starts and returns at once; `env` is added to the environment."""
        with self._lock:  # tests start commands in threads, too
            if self._server is None:
                self._server = forks.Server(self._socket, self._env)
        return self._server.start(arguments, stdout, env)

    def after(
        self, code: str, *arguments: str, env: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.Popen:
        """Starts a process of its own that runs `code` before the command line."""
        return subprocess.Popen(
            [sys.executable, "-c", f"{code}\nfrom omni_smola import main\nmain.cli()", *arguments],
            cwd=ROOT,
            env=self._env | env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """Ends the process that is forked."""
        if self._server is not None:
            self._server.close()

    def _ended(
        self, process: subprocess.Popen | forks.Fork, arguments: tuple[str, ...]
    ) -> subprocess.CompletedProcess:
        with process:
            out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture(scope="session")
def among_workers(tmp_path_factory) -> pathlib.Path:
    """A folder that all of pytest-xdist's workers share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def command(among_workers, tmp_path_factory) -> Iterator[Command]:
    folders = [among_workers / name for name in ("suite", "compiled")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    command = Command(*folders, tmp_path_factory.mktemp("forks") / "socket")
    yield command
    command.close()


@pytest.fixture(scope="session")
def trained(command, among_workers) -> tuple[pathlib.Path, subprocess.CompletedProcess]:
    """The workdir of a finished MICRO_RUN, and its process; of one worker, for all of them."""
    workdir, said = among_workers / "trained", among_workers / "trained.json"
    with filelock.FileLock(f"{said}.lock"):
        if not said.exists():
            done = command.fresh(*MICRO_RUN, f"--workdir={workdir}")
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    return workdir, subprocess.CompletedProcess(MICRO_RUN, *json.loads(said.read_text()))


def steps_of(workdir: pathlib.Path) -> list[int]:
    """The steps that have a complete checkpoint."""
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def checkpointed(workdir: pathlib.Path) -> dict:
    """The arrays of the newest checkpoint, "trainable/a/b" -> array."""
    from omni_smola.training import restoring

    return restoring.arrays(workdir / "checkpoints" / str(steps_of(workdir)[-1]))


def assert_same_checkpoint(workdir: pathlib.Path, other: pathlib.Path) -> None:
    """The newest checkpoints of two runs hold the same bits."""
    import numpy as np

    found, wanted = checkpointed(workdir), checkpointed(other)
    assert found.keys() == wanted.keys() and found
    for path, value in wanted.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


class SmallMome:
    """Configs and batches of a MoME of a few thousand parameters."""

    def __init__(self, encoders: dict):
        self.encoders = encoders

    def config(self, **changes):
        """The config; `vision_side=3` changes its field `vision.side`."""
        from omni_smola import config as configs

        config = configs.defaults()
        config.backbone.init = config.vision.init = "random"
        config.experts.method = "none"
        config.vision.encoders = "semantic+spatial"
        config.vision.update(side=2, layers=1, heads=2, points=2, d_ff=16)
        config.language.update(experts=3, rank=4)
        for name, value in changes.items():
            group, _, field = name.partition("_")
            config[group][field] = value
        return config

    def batch(self, size: int = 4) -> dict:
        """Random images, prompts and targets; the last example has no image."""
        import numpy as np

        rng = np.random.default_rng(0)
        made = {
            "image": np.zeros((size, 16, 16, 3), np.uint8),
            "image_mask": np.arange(size) < size - 1,
            "prompt": rng.integers(2, 40, (size, 5)).astype(np.int32),
            "prompt_mask": np.arange(5) < rng.integers(2, 6, (size, 1)),
            "target": rng.integers(2, 40, (size, 4)).astype(np.int32),
            "target_mask": np.ones((size, 4), bool),
        }
        for name, encoder in self.encoders.items():
            side = encoder.image_size
            image = rng.integers(0, 256, (size, side, side, 3)).astype(np.uint8)
            made[f"image:{name}"] = image
        return made


@pytest.fixture(scope="module")
def small_mome():
    """SmallMome, its encoders and language model in place of the named ones."""
    from omni_smola.models import shapes, vision_encoders
    from omni_smola.models.pali import PaliConfig
    from omni_smola.models.t5 import T5Config
    from omni_smola.models.vit import ViTConfig

    encoders = {
        "semantic": ViTConfig(image_size=16, patch_size=8, width=12, depth=1, mlp=16, heads=2),
        "spatial": ViTConfig(image_size=24, patch_size=8, width=8, depth=1, mlp=16, heads=2),
        "reading": ViTConfig(image_size=16, patch_size=4, width=8, depth=1, mlp=16, heads=2),
    }
    tiny = PaliConfig(
        ViTConfig(image_size=16, patch_size=8, width=12, depth=1, mlp=16, heads=2),
        T5Config(40, 2, 2, d_model=16, heads=2, d_head=8, d_ff=24),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision_encoders, "SMALL", encoders)
        patch.setitem(shapes.PALI, "tiny", tiny)
        yield SmallMome(encoders)


BERT_WORDS = "[PAD] [UNK] [CLS] [SEP] how many what is answer in en : ? ##s the".split()


@pytest.fixture(scope="session")
def sentence_folder(tmp_path_factory) -> pathlib.Path:
    """A Hugging Face folder of a tiny BERT with random weights, as MiniLM's is."""
    import numpy as np
    from safetensors.numpy import save_file

    width, mlp, layers = 6, 10, 2
    fields = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "vocab_size": len(BERT_WORDS),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 3,
        "intermediate_size": mlp,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    linears = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")} | {
        "attention.output.dense": (width, width),
        "intermediate.dense": (mlp, width),
        "output.dense": (width, mlp),
    }
    norms = ("attention.output.LayerNorm", "output.LayerNorm")
    shapes = {
        "embeddings.word_embeddings.weight": (len(BERT_WORDS), width),
        "embeddings.position_embeddings.weight": (16, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for layer in (f"encoder.layer.{i}." for i in range(layers)):
        for name, shape in linears.items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        for name in norms:
            shapes |= {f"{layer}{name}.weight": (width,), f"{layer}{name}.bias": (width,)}
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sentence_encoder")
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n")
    save_file(
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
        folder / "model.safetensors",
    )
    return folder
