"""One matrix or two: heads of every family against transformers, under every name and prefix.

Each file is written anew from what save_pretrained wrote, and read by both.
"""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from omni_smola.errors import UserError
from omni_smola.pretrained import gemma, llama

from . import test_gemma, test_llama, test_paligemma, test_t5, test_t5gemma2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
save_model = pytest.importorskip("safetensors.torch").save_model

SECOND = test_gemma.SECOND
# Family -> (writes its tied model, the class that reads it, embedding's names, head's names).
LLAMA = ("model.embed_tokens.weight",), "lm_head.weight"
FAMILIES = {
    "llama": (lambda: test_llama.original("tied"), "LlamaForCausalLM", *LLAMA),
    "gemma": (lambda: test_gemma.original("first"), "GemmaForCausalLM", *LLAMA),
    "gemma2": (lambda: test_gemma.original("second"), "Gemma2ForCausalLM", *LLAMA),
    "paligemma": (
        lambda: test_paligemma.original("first"),
        "PaliGemmaForConditionalGeneration",
        ("language_model.model.embed_tokens.weight",),
        "lm_head.weight",
    ),
    "paligemma2": (
        lambda: test_paligemma.original("second"),
        "PaliGemmaForConditionalGeneration",
        ("language_model.model.embed_tokens.weight",),
        "language_model.lm_head.weight",
    ),
    "t5gemma2": (
        lambda: test_t5gemma2.original("capped"),
        "T5Gemma2ForConditionalGeneration",
        ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
        "lm_head.out_proj.weight",
    ),
    "t5": (None, "T5ForConditionalGeneration", test_t5.t5._EMBEDDINGS, "lm_head.weight"),
    "mt5": (None, "MT5ForConditionalGeneration", test_t5.t5._EMBEDDINGS, "lm_head.weight"),
}
T5 = {"t5": "tied", "mt5": "mt5, tied"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Family -> (folder of its tied model, its tensors)."""
    made = {}

    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            if family in T5:
                test_t5.write(folder, T5[family])
            else:
                FAMILIES[family][0]().save_pretrained(folder)
            made[family] = folder, load_file(folder / "model.safetensors")
        return made[family]

    return get


def compare(family, folder):
    """Our logits against transformers' own, of one folder; whether the head is tied."""
    oracle = getattr(transformers, FAMILIES[family][1])
    oracle = oracle.from_pretrained(folder, attn_implementation="eager").eval()
    if family in T5:
        model, batch = test_t5.ours(folder), test_t5.make_batch(50, prompt=9, target=5)
        with torch.no_grad():
            labels = torch.from_numpy(batch["target"]).long()
            want = oracle(**test_t5.torch_inputs(batch), labels=labels).logits.numpy()
    elif family.startswith("paligemma"):
        model = test_paligemma.ours(folder)
        batch = test_paligemma.make_batch(model.config.vision.image_size)
        want = test_paligemma.wanted_logits(oracle, batch, model.config.vision.tokens)
    elif family == "t5gemma2":
        model = test_t5gemma2.ours(folder)
        batch = test_t5gemma2.make_batch(model.config.vision.image_size)
        starts = np.pad(batch["target"], ((0, 0), (1, 0)), constant_values=2)[:, :-1]
        with torch.no_grad():
            inputs = test_t5gemma2.torch_inputs(batch)
            starts = torch.from_numpy(starts).long()
            want = oracle(**inputs, decoder_input_ids=starts).logits.numpy()
    else:
        module, bos = (llama, 1) if family == "llama" else (gemma, 2)
        model, batch = test_gemma.ours(folder, module), test_gemma.make_batch()
        want = test_gemma.wanted_logits(oracle, batch, bos)
    test_gemma.assert_near(test_gemma.logits(model, batch), want)
    return model.head is None


def copied(written, family, tmp_path, tensors):
    source, _ = written(family)
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.mark.parametrize("family", FAMILIES)
def test_any_name_supplies_the_one_matrix(written, family, tmp_path):
    _, tensors = written(family)
    _, _, embeddings, head = FAMILIES[family]
    (matrix,) = (tensors[name] for name in embeddings if name in tensors)
    rest = {name: x for name, x in tensors.items() if name not in (*embeddings, head)}
    for name in (*embeddings, head):
        folder = copied(written, family, tmp_path / name, rest | {name: matrix})
        assert compare(family, folder), name
    every = dict.fromkeys((*embeddings, head), matrix)
    assert compare(family, copied(written, family, tmp_path / "every", rest | every))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_that_differ_are_an_untied_model(written, family, tmp_path):
    _, tensors = written(family)
    head = FAMILIES[family][3]
    (matrix,) = (tensors[name] for name in FAMILIES[family][2] if name in tensors)
    other = np.random.default_rng(1).normal(size=matrix.shape).astype(np.float32) / 6
    assert not compare(family, copied(written, family, tmp_path, tensors | {head: other}))


@pytest.mark.parametrize("family", FAMILIES)
def test_files_of_save_model(written, family, tmp_path):
    """safetensors.torch keeps one name of what shares memory, whichever comes first."""
    folder, _ = written(family)
    oracle = getattr(transformers, FAMILIES[family][1]).from_pretrained(folder)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_model(oracle, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    assert not set(load_file(tmp_path / "model.safetensors")) >= set(FAMILIES[family][2])
    assert compare(family, tmp_path)


@pytest.mark.parametrize("family", ["llama", "gemma2", "paligemma"])
@pytest.mark.parametrize("said", [True, False, None])
def test_what_config_json_says(written, family, said, tmp_path):
    """False needs a head, which is then the model's own even where it is a copy."""
    _, tensors = written(family)
    (embedding,), head = FAMILIES[family][2:]
    folder = copied(written, family, tmp_path, tensors | {head: tensors[embedding]})
    fields = json.loads((folder / "config.json").read_text())
    fields.pop("tie_word_embeddings", None)
    fields |= {} if said is None else {"tie_word_embeddings": said}
    # What the language model says of itself is not asked.
    if "text_config" in fields:
        fields["text_config"]["tie_word_embeddings"] = said is False
    (folder / "config.json").write_text(json.dumps(fields))
    tied = family != "llama" if said is None else said
    assert compare(family, folder) == tied


def test_an_untied_model_without_a_head_is_refused(written, tmp_path):
    """transformers draws one."""
    _, tensors = written("llama")
    folder = copied(written, "llama", tmp_path, tensors)
    test_gemma.changed_config(folder, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"missing lm_head\.weight"):
        test_gemma.ours(folder, llama)


def test_the_embedding_of_a_decoder_that_differs_is_refused(written, tmp_path):
    """transformers makes them two; ours is one."""
    _, tensors = written("t5")
    unlike = tensors | {"decoder.embed_tokens.weight": tensors["shared.weight"] + 1}
    with pytest.raises(UserError, match=r"unlike tensors, shared\.weight and decoder\.embed"):
        test_t5.ours(copied(written, "t5", tmp_path, unlike))


def test_a_head_alone_in_one_of_several_files(written, tmp_path):
    _, tensors = written("llama")
    tensors = dict(tensors)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    folder = copied(written, "llama", tmp_path, tensors)
    (folder / "model.safetensors").unlink()
    where = {}
    for number, name in enumerate(sorted(tensors)):
        where[name] = f"model-0000{1 + number % 2}-of-00002.safetensors"
    for file in set(where.values()):
        part = {name: x for name, x in tensors.items() if where[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert compare("llama", folder)


PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "base_model.model.",
    "language_model.",
    "transformer.",
    "module._orig_mod.",
    "student/",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrappers_prefix_changes_nothing(written, family, tmp_path):
    """Whatever stands before the names: the same weights as without it, head tied or not."""
    _, tensors = written(family)
    head = FAMILIES[family][3]
    (matrix,) = (tensors[name] for name in FAMILIES[family][2] if name in tensors)
    first = list(FAMILIES).index(family)
    prefixes = PREFIXES if family == "llama" else (PREFIXES[first], PREFIXES[first - 1])
    for untied in (False, True):
        plain = tensors | ({head: matrix[::-1].copy()} if untied else {})
        want = read(family, copied(written, family, tmp_path / f"plain {untied}", plain))
        for prefix in prefixes[untied::2]:
            wrapped = {prefix + name: x for name, x in plain.items()}
            got = read(family, copied(written, family, tmp_path / str(untied), wrapped))
            assert got.keys() == want.keys()
            assert all(np.array_equal(got[path], want[path]) for path in want), prefix


def read(family, folder):
    """Path -> array of our model of a folder."""
    if family in T5:
        model = test_t5.ours(folder)
    elif family.startswith("paligemma"):
        model = test_paligemma.ours(folder)
    elif family == "t5gemma2":
        model = test_t5gemma2.ours(folder)
    else:
        model = test_gemma.ours(folder, llama if family == "llama" else gemma)
    state = test_t5.nnx.to_pure_dict(test_t5.nnx.state(model, test_t5.nnx.Param))
    return {path: np.asarray(x) for path, x in test_t5.states.paths(state).items()}


@pytest.mark.parametrize("family", ["llama", "gemma2", "paligemma2", "t5gemma2"])
def test_a_bare_model_has_shorter_names(written, family, tmp_path):
    """LlamaModel and others leave out the `model.` of the model with a head."""
    folder, _ = written(family)
    oracle = getattr(transformers, FAMILIES[family][1]).from_pretrained(folder)
    oracle.model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    names = set(load_file(tmp_path / "model.safetensors"))
    if family in ("llama", "gemma2"):
        assert "norm.weight" in names
    got, want = read(family, tmp_path), read(family, folder)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[path], want[path]) for path in want)
