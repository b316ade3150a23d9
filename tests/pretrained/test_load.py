"""Checkpoints in safetensors by the rules of a family: every value, and every mistake at once."""

import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from omni_smola.errors import UserError
from omni_smola.models.layers import Precision, Projection, Stack
from omni_smola.pretrained import load, placement, position
from omni_smola.pretrained.rules import Family, Rule, transpose

FAMILY = Family(
    "Toy",
    (
        Rule("embed.weight", "embedding", others=("head.weight",)),
        Rule("deep.{}.q.weight", "stack/layers/kernel/q", transpose),
        Rule("deep.{}.k.weight", "stack/layers/kernel/k", transpose, first=4, step=-2),
        Rule("out.weight", "head/kernel/out", transpose),
        Rule("out.bias", "head/bias/out"),
        Rule("places", "places", fit=position.bicubic),
    ),
    (r"pooler\..*", r"deep\.\d+\.k\.unused"),
    ("toy",),
)


class Toy(nnx.Module):
    """Parameters outside and inside of a stack of three."""

    def __init__(self, seed=0, dtype=jnp.float32):
        rngs, precision = nnx.Rngs(seed), Precision(jnp.float32, dtype)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (7, 8), dtype))
        self.stack = Stack(
            lambda rngs: Projection(8, {"q": 6, "k": 4}, precision=precision, rngs=rngs),
            3,
            rngs=rngs,
        )
        self.head = Projection(8, {"out": 2}, use_bias=True, precision=precision, rngs=rngs)
        self.places = nnx.Param(jnp.zeros((9, 5), dtype))


SHAPES = {
    "embedding": (7, 8),
    "stack/layers/kernel/q": (3, 8, 6),
    "stack/layers/kernel/k": (3, 8, 4),
    "head/kernel/out": (8, 2),
    "head/bias/out": (2,),
    "places": (9, 5),
}


def wanted(dtype=jnp.float32):
    return {path: jax.ShapeDtypeStruct(shape, dtype) for path, shape in SHAPES.items()}


def make_tensors(dtype=np.float32):
    """Their names; layers of k are 4, 2 and 0 of five, the others of which are ignored."""
    rng = np.random.default_rng(0)
    shapes = {
        "embed.weight": (7, 8),
        **{f"deep.{i}.q.weight": (6, 8) for i in range(3)},
        **{f"deep.{i}.k.weight": (4, 8) for i in (0, 2, 4)},
        "deep.1.k.unused": (4, 8),
        "out.weight": (2, 8),
        "out.bias": (2,),
        "places": (9, 5),
        "pooler.dense.weight": (8, 8),
    }
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def expected(tensors):
    """Written without the rules."""
    return {
        "embedding": tensors["embed.weight"],
        "stack/layers/kernel/q": np.stack([tensors[f"deep.{i}.q.weight"].T for i in (0, 1, 2)]),
        "stack/layers/kernel/k": np.stack([tensors[f"deep.{i}.k.weight"].T for i in (4, 2, 0)]),
        "head/kernel/out": tensors["out.weight"].T,
        "head/bias/out": tensors["out.bias"],
        "places": tensors["places"],
    }


CONFIG = {"model_type": "toy"}


def write(folder, tensors, config=CONFIG):
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "toy", make_tensors())


def told(path, **changes):
    with pytest.raises(UserError) as error:
        load.read(path, FAMILY, wanted() | changes)
    return str(error.value)


def assert_equal(got, want):
    assert got.keys() == want.keys()
    for path, value in want.items():
        np.testing.assert_array_equal(np.asarray(got[path]), value, err_msg=path)


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_value_in_the_wanted_dtype(tmp_path, stored, dtype):
    tensors = make_tensors(stored)
    loaded = load.read(write(tmp_path / "toy", tensors), FAMILY, wanted(dtype))
    assert {x.dtype for x in loaded.values()} == {jnp.dtype(dtype)}
    assert_equal(loaded, {path: x.astype(dtype) for path, x in expected(tensors).items()})


def test_a_file_is_read_as_its_folder_is(folder):
    assert_equal(
        load.read(folder / "model.safetensors", FAMILY, wanted()), expected(make_tensors())
    )


def test_a_file_of_another_name_alone_in_its_folder(folder):
    (folder / "model.safetensors").rename(folder / "toy-v2.safetensors")
    assert_equal(load.read(folder, FAMILY, wanted()), expected(make_tensors()))
    (folder / "second.safetensors").write_bytes((folder / "toy-v2.safetensors").read_bytes())
    assert "has 2 .safetensors files (second.safetensors, ...)" in told(folder)


def sharded(folder, tensors):
    """Two files and an index, as save_pretrained writes them."""
    folder.mkdir()
    names = sorted(tensors)
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / load.huggingface.INDEX).write_text(json.dumps(index))
    return where


def test_files_with_an_index(tmp_path):
    tensors = make_tensors()
    sharded(tmp_path / "toy", tensors)
    for path in (tmp_path / "toy", tmp_path / "toy" / "model.safetensors.index.json"):
        assert_equal(load.read(path, FAMILY, wanted()), expected(tensors))


def test_mistakes_of_an_index(tmp_path):
    folder = tmp_path / "toy"
    where = sharded(folder, make_tensors())
    index = folder / load.huggingface.INDEX
    second = folder / "model-00002-of-00002.safetensors"
    index.write_text(json.dumps({"weight_map": where | {"lost": second.name}}))
    assert f"says that lost is in {second.name}" in told(folder)
    for file in ("../toy/" + second.name, "/etc/passwd", 3):
        index.write_text(json.dumps({"weight_map": where | {"lost": file}}))
        assert "does not map tensors to files" in told(folder)
    index.write_text(json.dumps({"weight_map": where}))
    second.unlink()
    assert f"lacks 1 of the files that {index.name} names: {second.name}" in told(folder)
    index.write_text("[]")
    assert "is not a JSON object" in told(folder)
    index.write_text("{")
    assert "is not JSON" in told(folder)


def test_a_model_is_filled_in_place(folder):
    model = Toy(1, jnp.bfloat16)
    load.fill(model, folder, FAMILY)
    want = {p: x.astype(jnp.bfloat16) for p, x in expected(make_tensors()).items()}
    state = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert_equal(load.paths(state), want)


def sharding(*spec):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("fsdp", "tensor"))
    return NamedSharding(mesh, PartitionSpec(*spec))


@pytest.mark.parametrize("block", [16, 64 << 20], ids=["in blocks", "at once"])
def test_parameters_are_placed_where_they_belong(folder, block, monkeypatch):
    """Divided over layers, rows or columns, or not at all; by blocks smaller than a tensor too."""
    monkeypatch.setattr(placement, "_BLOCK", block)
    place = {
        "embedding": sharding(None, ("fsdp", "tensor")),
        "stack/layers/kernel/q": sharding(None, "tensor", "fsdp"),
        "stack/layers/kernel/k": sharding(None, "fsdp", "tensor"),
        "head/kernel/out": sharding("tensor", "fsdp"),
    }
    leaves = wanted(jnp.bfloat16)
    leaves["places"] = jax.ShapeDtypeStruct((9, 5), jnp.float32, sharding=sharding())
    loaded = load.read(folder, FAMILY, leaves, place)
    for path, where in {**place, "places": sharding()}.items():
        assert loaded[path].sharding == where
        assert len(loaded[path].addressable_shards) == 8
    assert loaded["embedding"].addressable_shards[0].data.shape == (7, 1)
    assert loaded["head/bias/out"].devices() == {jax.devices()[0]}
    want = {path: x.astype(leaves[path].dtype) for path, x in expected(make_tensors()).items()}
    assert_equal(loaded, want)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_large_table_is_read_in_blocks(tmp_path, axis, monkeypatch):
    table = np.random.default_rng(0).normal(size=(23, 8)).astype(np.float32)
    save_file({"table": table}, tmp_path / "model.safetensors")
    asked = []
    real = load.SafetensorsFile.read

    def read(self, name, rows=None):
        asked.append(rows)
        return real(self, name, rows)

    monkeypatch.setattr(load.SafetensorsFile, "read", read)
    monkeypatch.setattr(placement, "_BLOCK", 5 * 8 * 4)
    family = Family("Toy", (Rule("table", "table", transpose if axis else None),))
    want = table.T if axis else table
    got = load.read(tmp_path, family, {"table": jax.ShapeDtypeStruct(want.shape, jnp.bfloat16)})
    assert asked == [slice(i, min(i + 5, 23)) for i in range(0, 23, 5)]
    assert_equal(got, {"table": want.astype(jnp.bfloat16)})


def test_a_transposed_matrix_wider_than_a_strip(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    save_file({"matrix": matrix}, tmp_path / "model.safetensors")
    family = Family("Toy", (Rule("matrix", "matrix", transpose),))
    got = load.read(tmp_path, family, {"matrix": jax.ShapeDtypeStruct((5, 300), jnp.float32)})
    assert_equal(got, {"matrix": matrix.T})


def test_positional_embeddings_of_another_resolution_are_resampled(folder):
    leaf = jax.ShapeDtypeStruct((16, 5), jnp.float32)
    got = load.read(folder, FAMILY, wanted() | {"places": leaf})["places"]
    want = position.bicubic(make_tensors()["places"], (16, 5))
    np.testing.assert_array_equal(got, want)
    for shape, why in (((8, 5), "8 tokens are no square"), ((16, 4), r"cannot become (16, 4)")):
        assert why in told(folder, places=jax.ShapeDtypeStruct(shape, jnp.float32))


def test_another_name_of_the_same_tensor(tmp_path):
    """One of both is enough; where there are both, they hold the same."""
    tensors = make_tensors()
    both = tensors | {"head.weight": tensors["embed.weight"].astype(np.float64)}
    want = expected(tensors)
    assert_equal(load.read(write(tmp_path / "both", both), FAMILY, wanted()), want)
    both["head.weight"] = both["head.weight"] + 1e-3 * np.eye(7, 8)
    message = told(write(tmp_path / "unlike", both))
    assert "holds two unlike tensors, embed.weight and head.weight" in message
    assert "--config.backbone.name=auto" in message
    tensors["head.weight"] = tensors.pop("embed.weight")
    assert_equal(load.read(write(tmp_path / "other", tensors), FAMILY, wanted()), want)
    del tensors["head.weight"]
    assert "missing embed.weight or head.weight" in told(write(tmp_path / "none", tensors))


def test_what_is_not_wanted_is_left_unread(folder):
    own = {path: leaf for path, leaf in wanted().items() if not path.startswith("stack/")}
    want = {path: x for path, x in expected(make_tensors()).items() if path in own}
    assert_equal(load.read(folder, FAMILY, own), want)


@pytest.mark.parametrize("half", [0, 1])
def test_all_that_does_not_fit_is_told_at_once(tmp_path, half):
    """In less than 600 characters, so that half of it is tried at a time."""
    tensors = make_tensors()
    absent = {}
    if half:
        tensors["deep.0.q.weight"] = np.zeros((6, 9), np.float32)
        tensors["embed.weight"] = np.zeros((7, 9), np.float32)
        tensors["deep.0.k.weight"] = np.zeros((4, 8), np.int8)
        problems = (
            "deep.0.q.weight is (6, 9), as ours (9, 6), instead of (8, 6)",
            "embed.weight is (7, 9) instead of (7, 8)",
            "deep.0.k.weight holds I8, which is none of float64, float32, float16, bfloat16",
        )
    else:
        del tensors["out.bias"], tensors["deep.2.q.weight"]
        tensors["deep.3.q.weight"] = tensors["extra"] = np.zeros((6, 8), np.float32)
        absent = {"missing": jax.ShapeDtypeStruct((1,), jnp.float32)}
        problems = (
            "no name for missing in a Toy",
            "missing out.bias",
            "missing deep.2.q.weight",
            "unexpected deep.3.q.weight",
            "unexpected extra",
        )
    path = write(tmp_path / "toy", tensors)
    message = told(path, **absent)
    assert f"The checkpoint {path / 'model.safetensors'} (a 'toy' by its config.json)" in message
    for problem in problems:
        assert problem in message
    assert " more" not in message
    assert len(message) < 600


def test_a_long_list_of_problems_is_counted(tmp_path):
    tensors = {f"other.{i}": np.zeros((1,), np.float32) for i in range(20)}
    message = told(write(tmp_path / "toy", tensors))
    assert "10 tensors are missing" in message
    shown = message.count(";")
    assert f"and {30 - shown} more" in message  # twenty are unexpected
    assert "Its own names are such as other.0, other.18, other.9" in message
    assert len(message) < 600


def test_nothing_of_a_checkpoint_that_does_not_fit_is_read(folder, monkeypatch):
    monkeypatch.setattr(load.SafetensorsFile, "read", None)
    assert "instead of (7, 9)" in told(folder, embedding=jax.ShapeDtypeStruct((7, 9), jnp.float32))


def test_a_transform_that_cannot_be_is_a_shape_that_does_not_fit(tmp_path):
    save_file({"x": np.zeros((3, 4), np.float32)}, tmp_path / "model.safetensors")
    family = Family("Toy", (Rule("x", "y", lambda x: x.transpose(0, 2, 1)),))
    with pytest.raises(UserError, match=r"x of shape \(3, 4\) cannot be y of shape \(4, 3\)"):
        load.read(tmp_path, family, {"y": jax.ShapeDtypeStruct((4, 3), jnp.float32)})


def test_another_architecture(tmp_path):
    path = write(tmp_path / "toy", make_tensors(), {"model_type": "llama"})
    assert "is a 'llama' by its config.json, but this backbone is a Toy (model_type 'toy')" in (
        told(path)
    )
    path = write(tmp_path / "toy", make_tensors(), {})
    assert "is a 'model of unnamed type'" in told(path)
    path = write(
        tmp_path / "toy", make_tensors(), {"quantization_config": {"quant_method": "gptq"}}
    )
    assert "are quantised (gptq)" in told(path)


def test_without_a_config_the_names_decide(tmp_path):
    path = write(tmp_path / "toy", make_tensors(), None)
    assert_equal(load.read(path, FAMILY, wanted()), expected(make_tensors()))


@pytest.mark.parametrize("keep", [0, 7, 8, 60, -1])
def test_a_file_cut_short(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"The file {file} is not a complete safetensors file" in told(folder)


def header(fields, data=b""):
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (header(b"[]"), "no JSON object"),
        (header(b"{"), "Expecting"),
        (header({"x": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8), "dtype"),
        (header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}}, b"\0" * 9), "bytes"),
        (header({"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}), "negative"),
        (header({"x": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}}), "str"),
        (header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 5), "end"),
        (header({"x": 3}), "int"),
        (b"PK\x03\x04" + b"\0" * 60, "begins otherwise"),
    ],
    ids=str,
)
def test_a_file_of_something_else(tmp_path, content, why):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    message = told(file)
    assert "is not a complete safetensors file" in message
    assert why in message


def test_a_file_that_is_cut_while_it_is_read(folder, monkeypatch):
    reader = load.open_checkpoint(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    last = max(reader._starts, key=reader._starts.get)
    with pytest.raises(UserError, match=f"{last} ends early"):
        reader.read(last)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x.pth", "x.ckpt", "a.msgpack"])
def test_a_pickle_is_refused_and_left_unread(tmp_path, name):
    (tmp_path / name).write_bytes(b"cbuiltins\nexit\n(I3\ntR.")  # exits when unpickled
    for path in (tmp_path, tmp_path / name):
        message = told(path)
        assert f"{tmp_path / name} are not opened: a pickle can run any code" in message
        assert "save_pretrained(FOLDER), which writes safetensors" in message


def test_paths_that_lead_nowhere(tmp_path):
    assert "There is no checkpoint" in told(tmp_path / "absent")
    assert f"The folder {tmp_path} has no weights" in told(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert "is no checkpoint that is read" in told(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="There is no weight file"):
        load.SafetensorsFile(pathlib.Path("/nowhere/model.safetensors"))
