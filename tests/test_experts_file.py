"""Experts in a file: the same bits, the same computation, and what does not fit is refused."""

import functools
import json
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.flax import load_file, save_file

import omni_smola as smola
from omni_smola.errors import UserError
from omni_smola.experts.attach import attach_to_linears
from omni_smola.experts.values import expert_parameters, put_parameters
from omni_smola.models.origin import Origin

from .experts.test_methods import Doubled
from .models.conftest import batch, make_pali, micro

__all__ = ["batch", "make_pali", "micro"]

SMOLA = smola.SmolaConfig(2, 1, 3, rank=2, scale_init=4.0)


def tuned(model, seed=0):
    """All kinds of experts, with random values."""
    rngs = nnx.Rngs(seed)
    smola.attach_experts(model, SMOLA, "encoder/.*", rngs=rngs)
    smola.attach_experts(model, smola.LoraConfig(2), "decoder/.*/cross/q/q", rngs=rngs)
    smola.attach_experts(model, smola.MoleConfig(2, rank=3), "encoder/.*", rngs=rngs)
    rng = np.random.default_rng(seed)
    values = expert_parameters(model)
    put_parameters(
        model, {p: jnp.asarray(rng.normal(size=x.shape) / 4, x.dtype) for p, x in values.items()}
    )
    return model


def assert_same_bits(found, wanted):
    found, wanted = expert_parameters(found), expert_parameters(wanted)
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        assert found[path].dtype == value.dtype
        assert np.asarray(found[path]).tobytes() == np.asarray(value).tobytes(), path


@pytest.fixture(scope="module")
def saved(make_pali, tmp_path_factory):
    """A model with experts, and its file; nothing writes to either."""
    path, model = tmp_path_factory.mktemp("experts") / "ours.safetensors", tuned(make_pali())
    smola.save_experts(path, model, card={"scores": {"mini_vqa": 61.5}, "license": "CC0-1.0"})
    return path, model


def changed(saved, folder, change=lambda card: None, tensors=lambda tensors: None):
    """A copy of the file, with a card and tensors that are changed in place."""
    card, values = smola.read_card(saved[0]), load_file(saved[0])
    change(card), tensors(values)
    save_file(values, folder / "changed.safetensors", metadata={"omni_smola": json.dumps(card)})
    return folder / "changed.safetensors"


def test_a_bare_backbone_gets_the_same_experts(saved, make_pali, batch):
    path, model = saved
    again = make_pali()
    card = smola.load_experts(path, again)
    assert_same_bits(again, model)
    logits = nnx.jit(lambda model, batch: nnx.clone(model)(batch))
    np.testing.assert_array_equal(logits(again, batch), logits(model, batch))
    assert card["scores"] == {"mini_vqa": 61.5} and card["license"] == "CC0-1.0"
    assert card["format"] == 1 and card["omni_smola"] == smola.__version__
    # MoLE was put around the feed-forward after its linears had experts: theirs come second again.
    assert {one["method"] for one in card["experts"][:3]} == {"smola", "mole", "lora"}
    assert card["experts"][3]["paths"][0].startswith("encoder/stack/layers/mlp/base/")
    assert card["parameters"] == sum(x.size for x in expert_parameters(model).values())


def test_a_model_with_the_same_experts_gets_their_values(saved, make_pali):
    other = tuned(make_pali(), seed=1)
    smola.load_experts(saved[0], other)
    assert_same_bits(other, saved[1])


def test_the_card_can_be_read_beside_the_file(saved):
    path, _ = saved
    text = path.with_suffix(".json").read_text()
    assert json.loads(text) == smola.read_card(path) and "\n" in text
    assert sorted(file.name for file in path.parent.iterdir()) == ["ours.json", "ours.safetensors"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_values_stay_on_the_devices_of_the_model(saved, make_pali):
    other = tuned(make_pali(), seed=1)
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    place = {
        path: NamedSharding(mesh, PartitionSpec(*[None] * (x.ndim - 1), "data"))
        if x.ndim and x.shape[-1] % 2 == 0
        else NamedSharding(mesh, PartitionSpec())
        for path, x in expert_parameters(other).items()
    }
    state = nnx.state(other, smola.ExpertParam)
    placed = {p: jax.device_put(x, place[p]) for p, x in expert_parameters(other).items()}
    flat, structure = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
    nnx.replace_by_pure_dict(state, jax.tree.unflatten(structure, [placed[n] for n in names]))
    nnx.update(other, state)
    smola.load_experts(saved[0], other)
    assert_same_bits(other, saved[1])
    assert {p: x.sharding for p, x in expert_parameters(other).items()} == place


def test_bfloat16_and_numbers_that_are_not_finite(make_pali, tmp_path):
    model, again = tuned(make_pali()), tuned(make_pali(), seed=1)
    for one in (model, again):
        nnx.update(
            one,
            jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.state(one, smola.ExpertParam)),
        )
    values = expert_parameters(model)
    path = next(iter(values))
    put_parameters(model, values | {path: values[path].at[...].set(jnp.nan)})
    smola.save_experts(tmp_path / "a.safetensors", model)
    smola.load_experts(tmp_path / "a.safetensors", again)
    assert_same_bits(again, model)
    with pytest.raises(UserError, match="is bfloat16 instead of float32"):
        smola.load_experts(tmp_path / "a.safetensors", tuned(make_pali()))


def told(path, model, **how):
    """The sentence, and that the model is as before."""
    before = expert_parameters(model)
    with pytest.raises(UserError) as error:
        smola.load_experts(path, model, **how)
    after = expert_parameters(model)
    assert after.keys() == before.keys()
    assert all(after[path] is before[path] for path in before)
    return str(error.value)


def test_another_backbone_is_refused_unless_it_is_wanted(saved, make_pali):
    other = make_pali()
    other.embedding[...] = other.embedding[...] * 1.5
    said = told(saved[0], other)
    assert "were trained on another backbone (fingerprint '" in said and "check=False" in said
    smola.load_experts(saved[0], other, check=False)
    assert_same_bits(other, saved[1])


def test_other_experts_are_refused(saved, make_pali, tmp_path):
    other = make_pali()
    smola.attach_experts(other, smola.LoraConfig(2), "encoder/.*", rngs=nnx.Rngs(0))
    assert "are not those of this model: missing encoder/" in told(saved[0], other)
    name = next(name for name in load_file(saved[0]) if name.endswith("w_in"))

    def cut(tensors):
        tensors[name] = tensors[name][:1]

    path = changed(saved, tmp_path, tensors=cut)
    assert f"{name} is (1, " in told(path, make_pali())
    path = changed(saved, tmp_path, tensors=lambda tensors: tensors.pop(name))
    assert f"missing {name}." in told(path, make_pali())
    path = changed(saved, tmp_path, tensors=lambda tensors: tensors.update(more=jnp.ones(2)))
    assert "unexpected more." in told(path, tuned(make_pali()))


def test_what_no_shape_shows_must_agree_too(make_pali, tmp_path):
    def model(alpha):
        bare = make_pali()
        smola.attach_experts(bare, smola.LoraConfig(2, alpha), "encoder/.*", rngs=nnx.Rngs(0))
        return bare

    smola.save_experts(tmp_path / "a.safetensors", model(4.0))
    said = told(tmp_path / "a.safetensors", model(16.0))
    assert '"alpha": 4.0' in said and "but the model has" in said and '"alpha": 16.0' in said
    smola.load_experts(tmp_path / "a.safetensors", model(4.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card.update(format=2, omni_smola="9.1"), "install omni_smola 9.1 or newer"),
        (lambda card: card.update(format="1"), "is damaged"),
        (lambda card: card.update(format=0), "is damaged"),
        (lambda card: card.pop("backbone"), "is damaged"),
        (lambda card: card["backbone"].pop("fingerprint"), "is damaged"),
        (lambda card: card.update(experts={"a": 1}), "is damaged"),
        (lambda card: card["experts"][0].update(paths=[1]), "is damaged"),
        (lambda card: card["experts"][0].update(paths="encoder"), "is damaged"),
        (lambda card: card["experts"][0].update(config=[4]), "is damaged"),
        (lambda card: card["experts"][0].update(method="nice"), "of the kind 'nice'"),
        (lambda card: card["experts"][0]["config"].update(rank=0), "experts.rank is 0"),
        (lambda card: card["experts"][0]["config"].update(rank="two"), "does not fit this version"),
        (
            lambda card: [one["config"].pop("instruction_width", 0) for one in card["experts"]],
            "fit this",
        ),
        (lambda card: card["experts"][0].update(paths=["a.*"]), "matches no linear"),
        (lambda card: card["experts"].clear(), "describes no experts to attach"),
    ],
)
def test_a_card_that_is_damaged_or_newer(saved, make_pali, tmp_path, change, said):
    assert said in told(changed(saved, tmp_path, change), make_pali())


def test_files_of_something_else(saved, make_pali, tmp_path):
    path, model = tmp_path / "a.safetensors", make_pali()
    assert "There is no file of experts" in told(path, model)
    for size in (0, 7, 300, -1):
        path.write_bytes(saved[0].read_bytes()[:size])
        assert "is not a complete safetensors file" in told(path, model)
        with pytest.raises(UserError, match="no complete file of experts"):
            smola.read_card(path)
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    assert "is not a complete safetensors file" in told(path, model)
    assert "is not a complete safetensors file" in told(tmp_path, model)
    save_file({"a": jnp.ones(2)}, path)
    assert "has no card of omni_smola" in told(path, model)
    save_file({"a": jnp.ones(2)}, path, metadata={"omni_smola": "{"})
    assert "is damaged" in told(path, model)


def test_what_cannot_be_saved(make_pali, saved, tmp_path):
    model = saved[1]
    for name, card, said in [
        ("a.bin", {}, "called a.bin, but it is a .safetensors file"),
        ("a.safetensors", {"format": 3}, "has format, which save_experts writes itself"),
        ("a.safetensors", {"scores": float("nan")}, "a value that JSON does not have"),
        ("a.safetensors", {"scores": np.float32(3)}, r"NumPy's numbers as float\(x\)"),
    ]:
        with pytest.raises(UserError, match=said):
            smola.save_experts(tmp_path / name, model, card=card)
    with pytest.raises(UserError, match="Pali has no experts to save"):
        smola.save_experts(tmp_path / "a.safetensors", make_pali())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to .*: make room"):
        smola.save_experts(tmp_path / "file" / "a.safetensors", model)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_save_that_fails_leaves_the_file_that_was_there(saved, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    (tmp_path / "a.json.tmp").mkdir()  # nothing can be written there
    with pytest.raises(UserError, match="cannot be written"):
        smola.save_experts(path, saved[1])
    assert path.read_bytes() == b"before" and not (tmp_path / "a.safetensors.tmp").exists()


def test_experts_of_the_users_own_are_loaded_where_they_are(micro, make_pali, tmp_path):
    def mine(factor):
        model, where = make_pali(), "encoder/stack/layers/attention/out/o"
        attach_to_linears(model, where, Doubled, rngs=nnx.Rngs(0), routed=False)
        values = {path: x * factor for path, x in expert_parameters(model).items()}
        put_parameters(model, values)
        return model

    path, again = tmp_path / "a.safetensors", mine(1)
    smola.save_experts(path, mine(3))
    smola.load_experts(path, again)
    assert_same_bits(again, mine(3))
    assert "attached by its own code: attach it first" in told(path, make_pali())


def test_a_linear_of_another_model(tmp_path):
    def make():
        return nnx.Sequential(
            nnx.Linear(4, 6, rngs=nnx.Rngs(0)), nnx.Linear(6, 4, rngs=nnx.Rngs(1))
        )

    attach = functools.partial(smola.attach_experts, config=SMOLA, where="layers/1")
    model, again = make(), make()
    attach(model, rngs=nnx.Rngs(5))
    card = smola.save_experts(tmp_path / "a.safetensors", model)
    assert card["backbone"]["name"] == "" and card["experts"][0]["paths"] == ["layers/1"]
    smola.load_experts(tmp_path / "a.safetensors", again)
    assert_same_bits(again, model)


def test_experts_of_another_frame_are_refused(make_pali, tmp_path):
    def framed(frame):
        model = make_pali()
        model.origin = Origin("micro", "", "float32", 24, 40, "", frame)
        return model

    card = smola.save_experts(tmp_path / "a.safetensors", tuned(framed("eos")))
    assert card["backbone"]["frame"] == "eos"
    other = framed("chatml")
    with pytest.raises(UserError, match=r"\(frame 'eos' instead of 'chatml'\).*check=False"):
        smola.load_experts(tmp_path / "a.safetensors", other)
    assert not expert_parameters(other)
    smola.load_experts(tmp_path / "a.safetensors", other, check=False)
    smola.load_experts(tmp_path / "a.safetensors", framed("eos"))
    smola.load_experts(tmp_path / "a.safetensors", make_pali())  # its frame is not known
