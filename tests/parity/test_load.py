"""What is read of a checkpoint against transformers and torch: tensors, positions, token ids."""

import ml_dtypes
import numpy as np
import pytest

from omni_smola.data import vocabulary
from omni_smola.pretrained import load, position

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOWER = dict(
    hidden_size=20,
    intermediate_size=28,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=30,
    patch_size=6,
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", ["1GB", "20kB"], ids=["one file", "several"])
def test_every_tensor_of_a_saved_model(tmp_path, dtype, size):
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(**TOWER)
    model = transformers.SiglipVisionModel(config).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / load.huggingface.INDEX).is_file() == (size == "20kB")
    reader = load.open_checkpoint(tmp_path)
    want = {name.removeprefix("vision_model."): x for name, x in model.state_dict().items()}
    assert {name.removeprefix("vision_model.") for name in reader.entries} == want.keys()
    for name in reader.entries:
        got, tensor = reader.read(name), want[name.removeprefix("vision_model.")]
        assert got.dtype == np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
        np.testing.assert_array_equal(got.astype(np.float32), tensor.float().numpy())
        half = slice(len(got) // 2, len(got))
        np.testing.assert_array_equal(reader.read(name, half), got[half])
    assert load.huggingface.config(tmp_path)["model_type"] == "siglip_vision_model"


@pytest.mark.parametrize(("old", "new"), [(5, 8), (8, 5), (16, 32), (7, 6), (1, 3)])
def test_bicubic_is_torchs(old, new):
    x = np.random.default_rng(0).normal(size=(old * old, 4)).astype(np.float32)
    grid = torch.tensor(x).reshape(1, old, old, 4).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic")
    want = want.permute(0, 2, 3, 1).reshape(new * new, 4).numpy()
    np.testing.assert_allclose(position.bicubic(x, want.shape), want, atol=3e-6)


@pytest.mark.parametrize("side", [3, 8])
def test_bicubic_is_what_the_towers_do(side):
    """SigLIP has no class token, CLIP and DINOv2 have one in front."""
    torch.manual_seed(0)
    pixels = side * TOWER["patch_size"]
    for name, leading in (("Siglip", 0), ("CLIP", 1), ("Dinov2", 1)):
        model_name = "Dinov2Model" if name == "Dinov2" else f"{name}VisionModel"
        config = getattr(transformers, f"{name}{'' if name == 'Dinov2' else 'Vision'}Config")
        model = getattr(transformers, model_name)(config(**TOWER))
        embeddings = getattr(model, "vision_model", model).embeddings
        if name == "Dinov2":
            table = embeddings.position_embeddings.detach()[0]
        else:
            table = embeddings.position_embedding.weight.detach()
        tokens = torch.zeros(1, leading + side * side, TOWER["hidden_size"])
        want = embeddings.interpolate_pos_encoding(tokens, pixels, pixels)[0].detach().numpy()
        got = position.bicubic(table.numpy(), want.shape, leading=leading)
        assert np.std(want) > 1e-3
        np.testing.assert_allclose(got, want, atol=1e-6, err_msg=name)


TEXTS = [
    "the cat sat on the mat",
    "a hat,  a bat! 12.5%",
    "Größe ☃ naïve",
    "x_y {z}\nnew line",
    " front",
    "end ",
]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    import sentencepiece

    prefix = tmp_path_factory.mktemp("pieces") / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(prefix),
        vocab_size=70,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def test_token_ids_of_a_t5_folder(tmp_path, pieces):
    """From spiece.model, and from the tokenizer.json that transformers makes of it."""
    (tmp_path / "spiece.model").write_bytes(pieces.read_bytes())
    original = transformers.T5Tokenizer.from_pretrained(tmp_path)
    original.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "spiece.model").is_file()
    spoken, saved = vocabulary.load(tmp_path), vocabulary.load(tmp_path / "saved")
    assert type(spoken) is not type(saved)
    assert spoken.eos_id == saved.eos_id == original.eos_token_id == 1
    assert saved.vocab_size == len(original)
    for text in TEXTS:
        want = original(text)["input_ids"]
        assert [*spoken.encode(text), 1] == want, text
        assert [*saved.encode(text), 1] == want, text
        assert saved.decode(want) == original.decode(want, skip_special_tokens=True)
