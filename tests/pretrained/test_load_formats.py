"""big_vision's .npz files and the trees of T5X and Orbax, each written by what writes them."""

import json
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts
from flax import serialization

from omni_smola.errors import UserError
from omni_smola.pretrained import load
from omni_smola.pretrained.big_vision import NpzFile
from omni_smola.pretrained.rules import Family, Rule
from omni_smola.pretrained.t5x import ArrayTree

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
LAYERS = 4
SHAPES = {
    "params/pos_embed": (1, 9, 5),
    "params/block/kernel": (LAYERS, 3, 2, 4),
    "params/block/scale": (LAYERS, 3),
    "params/head/bias": (7,),
}
FAMILY = Family(
    "Toy",
    (
        Rule("params/pos_embed", "places", lambda x: x[0]),
        Rule("params/block/kernel[{}]", "layers/kernel", lambda x: x.reshape(3, 8)),
        Rule("params/block/scale[{}]", "layers/scale"),
        Rule("params/head/bias", "bias"),
    ),
    (r"opt/.*",),
)
WANTED = {
    "places": jax.ShapeDtypeStruct((9, 5), jnp.float32),
    "layers/kernel": jax.ShapeDtypeStruct((LAYERS, 3, 8), jnp.float32),
    "layers/scale": jax.ShapeDtypeStruct((LAYERS, 3), jnp.float32),
    "bias": jax.ShapeDtypeStruct((7,), jnp.float32),
}


def make_tensors(dtype=np.float32):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def assert_read(path, tensors):
    """Every value is where it belongs, and the layers are in their order."""
    got = load.read(path, FAMILY, WANTED)
    want = {
        "places": tensors["params/pos_embed"][0],
        "layers/kernel": tensors["params/block/kernel"].reshape(LAYERS, 3, 8),
        "layers/scale": tensors["params/block/scale"],
        "bias": tensors["params/head/bias"],
    }
    assert got.keys() == want.keys()
    for path, value in want.items():
        np.testing.assert_array_equal(got[path], value.astype(np.float32), err_msg=path)


def stored(tensors):
    """As big_vision writes bfloat16: NumPy knows two bytes of it and no more."""
    return {n: x.view("V2") if x.dtype == BFLOAT16 else x for n, x in tensors.items()}


def told(path):
    with pytest.raises(UserError) as error:
        load.read(path, FAMILY, WANTED)
    return str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16], ids=str)
def test_npz(tmp_path, save, dtype):
    tensors = make_tensors(dtype)
    save(tmp_path / "model.npz", **stored(tensors), **{"opt/step": np.zeros((), np.int32)})
    assert_read(tmp_path / "model.npz", tensors)
    assert_read(tmp_path, tensors)  # a folder with nothing else


def test_npz_in_any_order_of_rows_and_of_memory(tmp_path):
    tensors = {
        "rows": np.arange(60, dtype=np.float32).reshape(5, 4, 3),
        "columns": np.asfortranarray(np.arange(60, dtype=np.float32).reshape(5, 4, 3)),
        "scalar": np.float32(3),
        "bits": np.arange(6, dtype=BFLOAT16).reshape(2, 3),
    }
    np.savez(tmp_path / "x.npz", **stored(tensors))
    reader = NpzFile(tmp_path / "x.npz")
    entries = {name: (entry.shape, entry.dtype) for name, entry in reader.entries.items()}
    assert entries == {name: (x.shape, x.dtype.name) for name, x in tensors.items()}
    for rows in (slice(3, 5), slice(0, 2), slice(2, 3), slice(1, 5)):
        for name in ("rows", "columns"):
            np.testing.assert_array_equal(reader.read(name, rows), tensors[name][rows])
    for name in [*tensors, *tensors]:
        np.testing.assert_array_equal(reader.read(name), tensors[name])
    reader.close()


def test_npz_that_is_damaged_or_holds_a_pickle(tmp_path):
    file = tmp_path / "model.npz"
    np.savez(file, **make_tensors())
    content = file.read_bytes()
    for keep in (0, 100, len(content) - 30):
        file.write_bytes(content[:keep])
        assert f"The file {file} is not a complete .npz file" in told(file)
    at = content.index(make_tensors()["params/head/bias"].tobytes())
    file.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    assert "Bad CRC-32" in told(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("params/pos_embed.npy", b"no array")
    assert "params/pos_embed: " in told(file)
    np.savez(file, **make_tensors() | {"opt/hook": np.array([print], object)})
    assert "holds Python objects (opt/hook), which are a pickle" in told(file)
    np.savez(file, **make_tensors() | {"params/head/bias": np.zeros(7, ">f4")})
    assert "params/head/bias holds >f4" in told(file)
    with pytest.raises(UserError, match="There is no weight file"):
        NpzFile(tmp_path / "absent.npz")


def test_another_number_of_layers(tmp_path):
    tensors = make_tensors()
    tensors["params/block/scale"] = np.zeros((LAYERS + 1, 3), np.float32)
    tensors["params/block/kernel"] = np.zeros((LAYERS - 1, 3, 2, 4), np.float32)
    np.savez(tmp_path / "model.npz", **tensors)
    message = told(tmp_path)
    assert "params/block/scale has 5 layers instead of 4" in message
    assert "missing params/block/kernel[3]" in message


def nested(tensors):
    tree = {}
    for name, value in tensors.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


@pytest.mark.parametrize("database", [True, False], ids=["database", "folders"])
@pytest.mark.parametrize("zarr3", [True, False], ids=["zarr3", "zarr"])
def test_a_tree_that_orbax_wrote(tmp_path, database, zarr3):
    tensors = make_tensors(BFLOAT16 if zarr3 else np.float32)
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=database, use_zarr3=zarr3)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(tmp_path / "tree", nested(tensors | {"opt/step": np.int32(3)}))
    assert (tmp_path / "tree" / "manifest.ocdbt").is_file() == database
    assert_read(tmp_path / "tree", tensors)


def write_t5x(folder, tensors, chunks=None):
    """One zarr array per folder, as T5X's Checkpointer does."""
    for name, value in tensors.items():
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": str(folder / name.replace("/", "."))},
            "dtype": value.dtype.name,
            "metadata": {
                "compressor": {"id": "gzip"},
                "shape": list(value.shape),
                "chunks": chunks or list(value.shape),
            },
        }
        ts.open(spec, create=True).result().write(value).result()


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_a_tree_that_t5x_wrote(tmp_path, dtype):
    """Undivided arrays lie in the msgpack file, which names the others by how to open them."""
    tensors = make_tensors(dtype)
    within = {name: tensors[name] for name in ("params/head/bias", "params/block/scale")}
    write_t5x(tmp_path, {name: x for name, x in tensors.items() if name not in within})
    spec = {"driver": "zarr", "kvstore": {"driver": "file"}, "metadata": {"chunks": np.ones(2)}}
    optimizer = nested(within | {"params/pos_embed": spec, "opt/step": np.int32(3)})
    data = serialization.msgpack_serialize({"version": 3, "optimizer": optimizer})
    (tmp_path / "checkpoint").write_bytes(data)
    assert_read(tmp_path, tensors)


def test_rows_of_a_chunk_are_unpacked_once(tmp_path, monkeypatch):
    table = np.arange(24, dtype=np.float32).reshape(6, 4)
    write_t5x(tmp_path, {"whole": table})
    write_t5x(tmp_path, {"rows": table}, [1, 4])
    reader = ArrayTree(tmp_path)
    shapes = []
    real = ArrayTree._read
    monkeypatch.setattr(
        ArrayTree, "_read", lambda self, array: shapes.append(array.shape) or real(self, array)
    )
    for name, want in (("whole", [(6, 4)]), ("rows", [(1, 4)] * 3)):
        shapes.clear()
        for row in (0, 5, 2):
            np.testing.assert_array_equal(
                reader.read(name, slice(row, row + 1)), table[row : row + 1]
            )
        assert shapes == want
    reader.close()


def test_a_damaged_tree(tmp_path):
    write_t5x(tmp_path, make_tensors())
    chunk = tmp_path / "params.head.bias" / "0"
    chunk.write_bytes(b"nothing")
    assert f"The folder {tmp_path} holds arrays that cannot be read" in told(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"\x93")
    assert "holds arrays that cannot be read" in told(tmp_path)
    (tmp_path / "checkpoint").unlink()
    meta = tmp_path / "params.head.bias" / ".zarray"
    fields = json.loads(meta.read_text())
    meta.write_text(json.dumps(fields | {"dtype": "<i4"}))
    assert "params/head/bias holds int32" in told(tmp_path)
    meta.write_text("{")
    assert "holds arrays that cannot be read" in told(tmp_path)
