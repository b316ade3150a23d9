"""What a run is: every field with its default.

A file in configs/ is one experiment: `get_config(arg)` starts from `defaults()` and changes what is
its own. `--config=configs/pali_smola.py:rank=8 --config.steps=100` sets both kinds of values.
"""

import ml_collections

from omni_smola.config_arguments import parse_arg, parse_experts, paths, split_list
from omni_smola.config_checks import check
from omni_smola.config_tasks import MIXTURES, SUITES, add_source, set_folders, set_tasks

# What a file in configs/ needs, under one name.
__all__ = [
    "MIXTURES",
    "SUITES",
    "add_source",
    "check",
    "defaults",
    "parse_arg",
    "parse_experts",
    "paths",
    "set_folders",
    "set_pretraining",
    "set_tasks",
    "split_list",
]


def defaults() -> ml_collections.ConfigDict:
    """All fields of a run, commented group by group."""
    config = ml_collections.ConfigDict()
    config.name = "run"  # of the experiment, written to config.json
    config.seed = 0  # of the experts' start, the order of examples and sampled decoding
    config.steps = 600  # of the whole run
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
    config.vision.encoders = ""  # joined by +, such as semantic+dinov2_small@168; "" is the tower
    # "shipped", "random", or a folder of NAME.safetensors files and Hugging Face folders NAME.
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
    config.vision.dropout = 0.1  # of adt and cross_attention, in training

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
    config.data.max_pixels = 64_000_000  # of an image; a JPEG of up to 4 times as many is halved
    config.data.prompts = "pali"  # pali ("caption in en"), instruction (whole sentences)
    config.data.ocr = (
        0  # at most so many words on the image after a prompt, where a dataset has them
    )
    config.data.vocabulary = ""  # a SentencePiece .model; "" is the one of the package
    # What stands around a prompt: auto is what the backbone was trained with; see data/frames.py.
    config.data.frame = "auto"
    config.data.prompt_length = 24  # tokens of a prompt's own, and EOS where one ends it
    config.data.target_length = 12  # tokens of an answer and what ends it
    config.data.train_split = "train"  # of every task

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"  # adamw, adafactor
    config.optimizer.learning_rate = 1e-3  # after the warm-up
    config.optimizer.warmup = 40  # steps
    config.optimizer.schedule = "cosine"  # constant, cosine, linear, rsqrt
    config.optimizer.final_fraction = 0.0  # of the learning rate, at the end of cosine and linear
    config.optimizer.b1 = 0.9  # decay of AdamW's first moment
    config.optimizer.b2 = 0.999  # of its second moment
    config.optimizer.weight_decay = 0.0  # of what is trained
    config.optimizer.clip_norm = 1.0  # of all gradients together; 0 is no clipping

    config.loss = ml_collections.ConfigDict()
    config.loss.label_smoothing = 0.0  # share of the probability spread over the vocabulary
    config.loss.z_loss = 0.0  # weight of log(Z)^2, which keeps the logits from drifting

    config.mesh = ml_collections.ConfigDict()  # devices per axis; one may be -1: the rest
    config.mesh.data = -1  # divides the batch
    config.mesh.fsdp = 1  # divides the batch, and the experts' weights and optimiser state
    config.mesh.tensor = 1  # divides heads, feed-forward widths and the vocabulary
    # Axes that frozen weights are divided over, joined by +; on the others every device has a copy.
    # "fsdp+tensor" takes less memory, and gathers every weight at every step.
    config.mesh.frozen = "tensor"

    config.eval = ml_collections.ConfigDict()
    config.eval.split = "test"  # that is evaluated
    config.eval.examples = 256  # of each task; 0 is all
    config.eval.batch_size = 128  # examples per batch, of all hosts together
    config.eval.every = 0  # steps between evaluations; 0 is only at the end
    config.eval.baseline = True  # evaluate the frozen backbone before training
    config.eval.tasks = ""  # names joined by +; "" is every task that is trained
    config.eval.groups = "family"  # rows of the report's means: family, or mome: its four groups

    config.decode = ml_collections.ConfigDict()
    config.decode.method = "greedy"  # greedy, beam, sample
    config.decode.beams = 4  # of beam search
    config.decode.alpha = 0.6  # length penalty of beam search
    config.decode.temperature = 1.0  # of sampling
    config.decode.top_k = 0  # samples among so many tokens; 0 is all
    config.decode.top_p = 1.0  # samples among the likeliest tokens of this total probability

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
