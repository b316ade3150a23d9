"""What a run is: every field with its default, arguments after the config's colon, validation.

A file in configs/ is one experiment: `get_config(arg)` starts from `defaults()` and changes what is
its own. `--config=configs/pali_smola.py:rank=8 --config.steps=100` sets both kinds of values.
"""

import difflib
import os
from collections.abc import Mapping
from typing import Any

import ml_collections

from omni_smola.errors import UserError

# Omni-SMoLA trains generalists on a captioning, a VQA and a full mixture; these are theirs on the
# embedded mini suite.
_CAPTIONING = ("mini_caption", "mini_describe")
_VQA = ("mini_vqa", "mini_count", "mini_chart", "mini_document", "mini_choice")
MIXTURES = {
    "captioning": _CAPTIONING,
    "vqa": _VQA,
    "full": (*_CAPTIONING, *_VQA, "mini_box"),
}

# The same of public datasets, and MoME's suite: tasks trained on, and tasks only evaluated.
_SMOLA_CAPTIONING = (
    "coco_captions textcaps vizwiz_captions scicap screen2words widget_captions".split(),
    ["nocaps", "xm3600"],
)
_SMOLA_VQA = (
    "vqav2 okvqa aokvqa_direct aokvqa_choice gqa vizwiz_vqa textvqa stvqa ocrvqa scienceqa ai2d "
    "chartqa docvqa infographicvqa".split(),
    ["tallyqa"],
)
SUITES = {
    "smola_captioning": _SMOLA_CAPTIONING,
    "smola_vqa": _SMOLA_VQA,
    "smola_full": tuple(a + b for a, b in zip(_SMOLA_CAPTIONING, _SMOLA_VQA, strict=True)),
    "mome": (
        "coco_captions flickr30k okvqa vqav2 aokvqa_direct gqa iconqa refcoco_rec refcoco_plus_rec "
        "refcocog_rec refcoco_reg refcoco_plus_reg refcocog_reg chartqa tabfact textcaps deepform "
        "visualmrc docvqa infographicvqa wikitablequestions textvqa".split(),
        ["nocaps", "vsr"],
    ),
}
# MoME trains on these and reports other sets of their groups.
_NOT_REPORTED = {"mome": ("vqav2", "visualmrc")}


def set_tasks(config: ml_collections.ConfigDict, tasks: str) -> None:
    """The tasks of a named mixture, or task names joined by +, in equal rates.

    A suite of public datasets is sampled by size, MoME's with equal shares of its four groups; its
    held-out sets are evaluated too.
    """
    trained, held_out = SUITES.get(tasks, (MIXTURES.get(tasks, tasks.split("+")), ()))
    for task in trained:
        config.data.rates[task] = 1.0
    if tasks in SUITES:
        hidden = _NOT_REPORTED.get(tasks, ())
        config.eval.tasks = "+".join(t for t in (*trained, *held_out) if t not in hidden)
        config.data.mixing = "group" if tasks == "mome" else "size"
        config.eval.groups = "mome" if tasks == "mome" else "family"


def set_folders(config: ml_collections.ConfigDict, folders: str) -> None:
    """Tasks of a user's own folders, paths joined by +, in equal rates; each is named after its.

    People's sentences are longer than the mini suite's: of Flickr8k's captions nine in ten fit.

    Raises:
      UserError: two folders of one name.
    """
    for folder in filter(None, folders.split("+")):
        path = os.path.abspath(os.path.expanduser(folder))
        name = os.path.basename(path)
        if name in config.data.sources:
            raise UserError(
                f"Two of the folders are called {name!r}: rename one, as a task is named like its "
                "folder."
            )
        config.data.sources[name] = path
        config.data.rates[name] = 1.0
    for length in ("prompt_length", "target_length"):
        config.data[length] = max(config.data[length], 32)


def set_pretraining(config: ml_collections.ConfigDict) -> None:
    """What all pretraining of small backbones shares: every weight, judged on validation splits."""
    config.experts.method = "full"
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.01
    config.log_every = 100
    config.eval.split = "validation"
    config.eval.examples = 200
    config.eval.baseline = False
    config.eval.batch_size = 100
    config.checkpoint.every = 500


def defaults() -> ml_collections.ConfigDict:
    """All fields of a run, commented group by group."""
    config = ml_collections.ConfigDict()
    config.name = "run"
    config.seed = 0  # of the experts' start, the order of examples and sampled decoding
    config.steps = 600
    config.batch_size = 32  # examples per step, of all hosts together
    config.accumulate = 1  # parts in which a batch is worked through
    config.log_every = 20  # steps between lines of progress

    # experts.method=full only: a .safetensors file that gets the whole backbone at the end.
    config.export = ""
    config.export_part = "backbone"  # or vision, its tower alone

    config.backbone = ml_collections.ConfigDict()
    config.backbone.name = "tiny"  # tiny, pali3, palix
    # "shipped" (tiny only), "random" (drawn from the seed), or a .safetensors file of ours.
    config.backbone.init = "shipped"
    config.backbone.resolution = 0  # pixels; 0 is the backbone's own
    config.backbone.dtype = "float32"  # of activations and products
    config.backbone.param_dtype = "float32"  # of the frozen weights in memory
    config.backbone.remat = False  # compute activations again in the backward pass
    config.backbone.unroll = 1  # layers per loop step of the compiled program

    config.experts = ml_collections.ConfigDict()
    config.experts.method = "smola"  # smola, lora, adapter, none, full
    config.experts.visual = 16  # E_V: experts that see visual tokens only
    config.experts.text = 16  # E_T: experts that see text tokens only
    config.experts.multimodal = 16  # E_MM: experts that see all tokens
    config.experts.rank = 4  # of smola's and lora's low-rank products; the adapter's width
    config.experts.alpha = 16.0  # lora only: the residual is times alpha / rank
    config.experts.router_rank = 0  # q of the factorised router; 0 is a full one
    config.experts.share_router = False  # q, k, v (and wi_0, wi_1) route alike
    # Start of the routers' temperature. The method's code has 1, near uniform routing that is slow
    # to sharpen; pali_smola.py starts its short default run higher.
    config.experts.scale_init = 1.0
    config.experts.where = ""  # regular expression of whole paths; "" is every encoder linear

    # MoME's vision experts, in place of the backbone's own vision tower.
    config.vision = ml_collections.ConfigDict()
    config.vision.encoders = ""  # joined by +, such as semantic+spatial+reading; "" is the tower
    # "shipped", "random", or a folder of NAME.safetensors files.
    config.vision.init = "shipped"
    config.vision.transform = "adt"  # adt, average, cross_attention
    config.vision.aggregate = "router"  # router, addition
    config.vision.cls = ""  # encoder whose CLS is put before the tokens, not routed
    config.vision.plain = ""  # encoders, joined by +, that a norm and a projection are enough for
    config.vision.side = 8  # every map is brought to side x side tokens (16 in the paper)
    config.vision.layers = 2  # of adt and cross_attention (6 in the paper)
    config.vision.heads = 4  # 8 in the paper
    config.vision.points = 4  # sampled per head
    config.vision.d_ff = 256  # 1024 in the paper
    config.vision.dropout = 0.1

    # MoME's language experts, parallel to the language model's feed-forwards.
    config.language = ml_collections.ConfigDict()
    config.language.experts = 0  # per layer; 1 is a single adapter, 0 is none
    config.language.rank = 64  # width of an expert's bottleneck
    config.language.route = "instance"  # instance, token, both
    config.language.gumbel = False  # sample the choice in training
    config.language.temperature = 1.0  # of that sampling
    config.language.balance = 0.0  # weight of the load-balance penalty (0.01 is customary)
    config.language.where = ""  # regular expression of paths; "" is every feed-forward
    config.language.stage_1 = ""  # workdir of single adapters that the experts start from
    config.language.stage_1_steps = 0  # of that stage, if it is to be trained first

    # What MoME's routers read of the instruction.
    config.instruction = ml_collections.ConfigDict()
    # A folder of MiniLM or another BERT; "" is the mean of the prompt's own embedded tokens.
    config.instruction.encoder = ""
    config.instruction.length = 64  # WordPiece tokens, where there is such an encoder

    config.data = ml_collections.ConfigDict()
    config.data.rates = ml_collections.ConfigDict()  # task -> relative rate of sampling
    # What the rates multiply: 1 (rates), examples (size), or those with equal shares of MoME's four
    # groups of tasks (group).
    config.data.mixing = "rates"
    config.data.temperature = 1.0  # of mixing by size: examples ** (1 / temperature)
    config.data.cap = 0  # of mixing by size: examples counted of a task at most; 0 is no cap
    config.data.sources = ml_collections.ConfigDict()  # task -> folder of JSONL and images
    config.data.data_dir = ""  # where TFDS keeps its sets; "" is its default
    config.data.manual_dir = ""  # official downloads that public datasets are prepared from
    # At damaged data (a record that cannot be read, an image that does not decode, a box out of
    # range): fail, or skip it and count.
    config.data.on_error = "fail"
    config.data.prompts = "pali"  # pali ("caption in en"), instruction (whole sentences)
    config.data.ocr = (
        0  # at most so many words on the image after a prompt, where a dataset has them
    )
    config.data.vocabulary = ""  # a SentencePiece .model; "" is the one of the package
    # What stands around a prompt: auto is what the backbone was trained with; see data/frames.py.
    config.data.frame = "auto"
    config.data.prompt_length = 24  # tokens of a prompt's own, and EOS where one ends it
    config.data.target_length = 12  # tokens of an answer and what ends it
    config.data.train_split = "train"

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"  # adamw, adafactor
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 40  # steps
    config.optimizer.schedule = "cosine"  # constant, cosine, linear, rsqrt
    config.optimizer.final_fraction = 0.0  # of the learning rate, at the end of cosine and linear
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0  # of all gradients together; 0 is no clipping

    config.loss = ml_collections.ConfigDict()
    config.loss.label_smoothing = 0.0
    config.loss.z_loss = 0.0

    config.mesh = ml_collections.ConfigDict()  # devices per axis; one may be -1: the rest
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh.tensor = 1
    # Axes that frozen weights are divided over, joined by +; on the others every device has a copy.
    # "fsdp+tensor" takes less memory, and gathers every weight at every step.
    config.mesh.frozen = "tensor"

    config.eval = ml_collections.ConfigDict()
    config.eval.split = "test"
    config.eval.examples = 256  # of each task; 0 is all
    config.eval.batch_size = 128
    config.eval.every = 0  # steps between evaluations; 0 is only at the end
    config.eval.baseline = True  # evaluate the frozen backbone before training
    config.eval.tasks = ""  # names joined by +; "" is every task that is trained
    config.eval.groups = "family"  # rows of the report's means: family, or mome: its four groups

    config.decode = ml_collections.ConfigDict()
    config.decode.method = "greedy"  # greedy, beam, sample
    config.decode.beams = 4
    config.decode.alpha = 0.6  # length penalty of beam search
    config.decode.temperature = 1.0
    config.decode.top_k = 0
    config.decode.top_p = 1.0

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 100  # steps; the last step is always kept
    config.checkpoint.minutes = 0.0  # the same in time, beside it; 0 is by steps only
    config.checkpoint.keep = 2  # the newest
    # So many more by the mean score of evaluations during training (eval.every); choose them on
    # eval.split=validation, not on the split that is reported.
    config.checkpoint.keep_best = 0
    config.checkpoint.which = "latest"  # or best: what eval, predict and routing take
    # SIGTERM saves and ends the run with status 0, or after so long without.
    config.checkpoint.grace_seconds = 300.0

    config.faults = ml_collections.ConfigDict()
    config.faults.bad_steps = 10  # steps in a row with a loss or gradients not finite end the run
    # A step that takes longer ends the run, which hangs; 0 waits for ever. The first step, which
    # compiles, and evaluation may take four times as long.
    config.faults.watchdog_minutes = 30.0
    config.faults.log_batches = False  # hashes of all rows in logs/batches-host-N.jsonl
    return config


def parse_arg(arg: str | None, **fields: Any) -> ml_collections.ConfigDict:
    """Parses `name=value,name=value` after a config's colon.

    Args:
      arg: the text after the colon, or None.
      fields: the names allowed and their defaults, whose types (bool, int, float, str) the values
        get.

    Returns:
      A ConfigDict of all fields.

    Raises:
      UserError: an unknown name, a text without "=", or a value of the wrong type.
    """
    values = ml_collections.ConfigDict(fields)
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if not equals or name not in fields:
            hint = difflib.get_close_matches(name, fields, n=1)
            raise UserError(
                f"The config argument {part!r} is not one of name=value with a name out of "
                f"{', '.join(fields)}" + (f": did you mean {hint[0]}=...?" if hint else ".")
            )
        values[name] = _typed(name, text, fields[name])
    return values


def parse_experts(text: str) -> tuple[int, int, int]:
    """`16-16-16` -> visual, text and multimodal experts; raises UserError."""
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise UserError(
            f"experts={text} is not of the form visual-text-multimodal, three whole numbers of 0 "
            "or more, such as experts=16-16-16."
        )
    return tuple(int(part) for part in parts)


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for a number out of range that no other part of a run checks at the door."""
    for name, least in (
        ("steps", 0),
        ("batch_size", 1),
        ("accumulate", 1),
        ("log_every", 1),
        ("data.prompt_length", 2),
        ("data.target_length", 2),
        ("optimizer.learning_rate", 0),
        ("optimizer.clip_norm", 0),
        ("loss.z_loss", 0),
        ("eval.examples", 0),
        ("eval.batch_size", 1),
        ("eval.every", 0),
        ("checkpoint.every", 1),
        ("checkpoint.minutes", 0),
        ("checkpoint.keep", 1),
        ("checkpoint.keep_best", 0),
        ("checkpoint.grace_seconds", 0),
        ("faults.bad_steps", 1),
        ("faults.watchdog_minutes", 0),
        ("backbone.unroll", 1),
        ("language.stage_1_steps", 0),
    ):
        value = _lookup(config, name)
        if value < least:
            raise UserError(
                f"config.{name} is {value}, but it must be {least} or more: "
                f"set --config.{name}={least} or higher."
            )
    if not 0 <= config.loss.label_smoothing < 1:
        raise UserError(
            f"config.loss.label_smoothing is {config.loss.label_smoothing}, but it must be at "
            "least 0 and below 1: set --config.loss.label_smoothing=0.1."
        )
    if config.checkpoint.which not in ("latest", "best"):
        raise UserError(
            f"config.checkpoint.which is {config.checkpoint.which!r}: choose latest or best."
        )
    if config.data.on_error not in ("fail", "skip"):
        raise UserError(f"config.data.on_error is {config.data.on_error!r}: choose fail or skip.")
    if config.checkpoint.keep_best and not config.eval.every:
        raise UserError(
            f"config.checkpoint.keep_best is {config.checkpoint.keep_best}, but nothing is "
            "evaluated during training: set --config.eval.every to a number of steps."
        )
    if config.export_part not in ("backbone", "vision"):
        raise UserError(
            f"config.export_part is {config.export_part!r}: choose backbone, or vision for its "
            "tower alone."
        )
    for name in ("backbone.dtype", "backbone.param_dtype"):
        if _lookup(config, name) not in ("float32", "bfloat16"):
            raise UserError(
                f"config.{name} is {_lookup(config, name)!r}: choose float32 or bfloat16."
            )


def _typed(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"The config argument {name}={text} needs a value of type {type(default).__name__}, "
            f"such as {name}={default}."
        ) from error


def _lookup(config: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config
