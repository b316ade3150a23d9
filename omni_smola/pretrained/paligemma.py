"""PaliGemma 1 and 2: the folders of Hugging Face's PaliGemmaForConditionalGeneration."""

from os import PathLike

from omni_smola.models.paligemma import PaliGemmaConfig, prefix_lm
from omni_smola.pretrained import gemma, llama, siglip, towers
from omni_smola.pretrained.rules import Family, Rule, transpose

TYPES = ("paligemma",)
_TOP = {"tie_word_embeddings": True}
_VISION = {
    "model_type": "siglip_vision_model",
    "num_channels": 3,
    "image_size": 224,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


def family(config: PaliGemmaConfig) -> Family:
    """The rules for the tensors of a PaliGemmaForConditionalGeneration.

    transformers 5 writes the names that the published files have; version 4.52 and its successors
    wrote others, with everything under `model`. The tower's pooling head, where there is one, is
    not read. Position embeddings are resampled to `config.vision.image_size` as transformers does.
    """
    projector = "multi_modal_projector.linear"
    rules = (
        *siglip.rules(_prefixes("vision_tower.", "vision_tower.vision_model."), "vision/"),
        *gemma.rules(
            config.language,
            ("language_model.model.", "model.language_model."),
            (f"language_model.{llama.HEAD}", llama.HEAD),
        ),
        _linear(f"{projector}.weight", "visual_projection/kernel/projection"),
        _linear(f"{projector}.bias", "visual_projection/bias/projection"),
    )
    ignored = (r"(model\.)?vision_tower\.(vision_model\.)?(head\..*|embeddings\.position_ids)",)
    return Family("PaliGemma", rules, ignored, TYPES, "model.")


def read_config(folder: str | PathLike) -> PaliGemmaConfig:
    """The sizes of a folder's model, from its config.json.

    Raises:
      UserError: no such folder or config.json, another architecture or a field that we do not
        compute, or a size that is missing or no whole number above zero, in one sentence for
        the whole, the language model or the tower.
    """
    top = towers.Fields(folder, "PaliGemma", {"paligemma": ""}, _TOP)
    tied = llama.tied_head(top)
    top.check()
    text = _part(folder, "text_config", gemma.ABSENT | {"model_type": "gemma"})
    kind = text.one_of("model_type", {"gemma": "gemma", "gemma2": "gemma2"})
    language = gemma.language_config(text, second=kind == "gemma2", tied=tied)
    tower = _part(folder, "vision_config", _VISION)
    tower.one_of("model_type", {"siglip_vision_model": "siglip"})
    return PaliGemmaConfig(siglip.tower_config(tower), prefix_lm(language))


def _part(folder: str | PathLike, name: str, absent: dict) -> towers.Fields:
    return towers.Fields(folder, "PaliGemma", {"paligemma": name}, absent)


def _linear(theirs: str, ours: str) -> Rule:
    transform = transpose if "/kernel/" in ours else None
    return Rule(theirs, ours, transform, others=(f"model.{theirs}",))


def _prefixes(*names: str) -> tuple[str, ...]:
    return names + tuple(f"model.{name}" for name in names)
