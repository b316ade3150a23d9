"""The model of a run: backbone and experts, divided and placed on the mesh.

The model is made abstractly first, so that every parameter is drawn or read straight into its
sharding: no device and no host ever holds more than its part of a 55B backbone's random weights.
"""

import dataclasses
import functools
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx
from jax.sharding import Mesh, Sharding

from omni_smola.errors import UserError
from omni_smola.models import backbones, build
from omni_smola.pretrained import backbones as public
from omni_smola.pretrained import minilm, native, tower_files
from omni_smola.training import compiler, distributed, restoring, sharding
from omni_smola.training import state as states
from omni_smola.training.layout import Layout
from omni_smola.views import View


@dataclasses.dataclass
class Model:
    """A backbone with its experts.

    Attributes:
      assemble: (trainable, frozen) -> the NNX model.
      trainable, frozen: nested dicts of arrays on the mesh.
      fingerprint: of the backbone, see `state.fingerprint`.
      attached: paths that got experts.
      image_size: side in pixels. vocabulary: ids that can be embedded.
      views: how each vision encoder sees the image, where there are several.
      layout: where all of it lies on the mesh.
      frame: how its prompts are framed, see `backbones.frame`.
    """

    assemble: states.Assemble
    trainable: states.Tree
    frozen: states.Tree
    fingerprint: str
    attached: list[str]
    image_size: int
    vocabulary: int
    views: dict[str, View]
    layout: Layout
    frame: tuple[str, dict[str, int]]


def make_model(config: ml_collections.ConfigDict, mesh: Mesh) -> Model:
    """The model of a config; all that is random hangs on `config.seed`.

    Raises:
      UserError: an unknown backbone or expert method, a pattern without a match, a bad weight file.
    """
    plan = abstract_model(config, mesh)
    wrt = build.trainable_filter(config.experts)
    sizes = sizes_of(config.backbone)
    place = [jax.tree.map(lambda x: x.sharding, tree) for tree in (plan.trainable, plan.frozen)]
    wanted = states.backbone_weights(plan.trainable, plan.frozen)
    given = _read(config, sizes, wanted, states.backbone_weights(*place))
    trees = _fill(mesh, functools.partial(_make, config, sizes, []), wrt, place, given)
    distributed.barrier("drawn")  # a fingerprint is the first that processes do together
    return dataclasses.replace(
        plan,
        trainable=trees[0],
        frozen=trees[1],
        fingerprint=states.fingerprint(states.backbone_weights(*trees)),
    )


def abstract_model(config: ml_collections.ConfigDict, mesh: Mesh) -> Model:
    """As `make_model`, of shapes, dtypes and shardings: nothing is drawn or read but sizes.

    The devices of `mesh` may be a topology's. The leaves of trainable and frozen are
    `jax.ShapeDtypeStruct`s, and the fingerprint is empty.
    """
    sizes = sizes_of(config.backbone)
    build.check_experts(config.experts)
    build.check_mome(config.vision, config.language)
    attached: list[str] = []
    make = functools.partial(_make, config, sizes, attached)
    model = nnx.eval_shape(make)
    layout = Layout.of(mesh, config.mesh.frozen, model)
    assemble, *shapes = states.divide(model, build.trainable_filter(config.experts))
    layout.check(*shapes)
    place = layout.tree(shapes[0]), layout.tree(shapes[1], frozen=True)
    trees = [states.abstract(*pair) for pair in zip(shapes, place, strict=True)]
    return Model(
        assemble,
        *trees,
        "",
        list(attached),
        backbones.image_size(sizes),
        backbones.vocabulary(sizes),
        build.views(config.vision),
        layout,
        backbones.frame(sizes, config.backbone.name),
    )


def abstract_trainable(config: ml_collections.ConfigDict, mesh: Mesh) -> states.Tree:
    """Shapes, dtypes and shardings of what a config trains; nothing is drawn or read."""
    return abstract_model(config, mesh).trainable


def identity(
    config: ml_collections.ConfigDict, fingerprint: str, frame: str = ""
) -> dict[str, Any]:
    """What a checkpoint must agree on to be gone on with, as JSON-able values by name.

    Args:
      config: of the run. fingerprint: of its backbone. frame: the name of its framing.
    """
    plain = json.loads(config.to_json_best_effort())
    del plain["data"]["max_pixels"]  # a run that met a larger image goes on with a higher limit
    return {
        "backbone": f"{config.backbone.name} {fingerprint}",
        "experts": plain["experts"],
        "vision": plain["vision"] | {"init": ""},
        "instruction": plain["instruction"] | {"encoder": ""},
        "language": plain["language"] | {"stage_1": "", "stage_1_steps": 0},
        "seed": config.seed,
        "batch_size": config.batch_size,
        "data": _without_frame(plain["data"])
        | {"data_dir": "", "manual_dir": "", "on_error": "fail"},
        FRAME: frame or restoring.BEFORE[FRAME],
        "optimizer": plain["optimizer"],
        "loss": plain["loss"],
    }


def _without_frame(data: dict[str, Any]) -> dict[str, Any]:
    """The frame that is used counts, not whether the config names it."""
    return {name: value for name, value in data.items() if name != "frame"}


def check_backbone(config: ml_collections.ConfigDict) -> None:
    """Raises UserError for a `config.backbone` without known sizes, or whose file is missing."""
    sizes_of(config)
    if not public.is_public(config.init):
        file = weight_file(config)
        if file is not None and not os.path.exists(file):
            native.read(file, {})  # raises the sentence about it


def sizes_of(config: ml_collections.ConfigDict) -> backbones.Backbone:
    """Those of `config.backbone`: by its name, or of the checkpoint that it starts from."""
    if config.name != "auto":
        return build.sizes(config)
    if not public.is_public(config.init):
        raise UserError(
            f"backbone.name is auto, but backbone.init is {config.init!r}: auto reads the sizes "
            "from the config.json of a public checkpoint, --config.backbone.init=FOLDER or "
            "hf://OWNER/REPO."
        )
    return backbones.at_resolution(public.read_config(config.init), "auto", config.resolution)


def _make(
    config: ml_collections.ConfigDict, sizes: backbones.Backbone, attached: list[str]
) -> nnx.Module:
    """Backbone and experts with fresh weights; writes the paths that got experts."""
    folder = config.instruction.encoder
    sentence = minilm.read_config(folder) if folder else None
    model = build.backbone(config.backbone, nnx.Rngs(config.seed), config.vision, sentence, sizes)
    where = backbones.expert_paths(sizes)
    attached[:] = build.attach_experts(model, config.experts, nnx.Rngs(config.seed + 1), where)
    attached.extend(
        build.attach_language_experts(model, config.language, nnx.Rngs(config.seed + 2))
    )
    return model


def _read(
    config: ml_collections.ConfigDict,
    sizes: backbones.Backbone,
    wanted: dict[str, jax.ShapeDtypeStruct],
    place: dict[str, Sharding],
) -> dict[str, jax.Array]:
    """Backbone weights by path, of those parts that the config does not want drawn."""
    towers = tuple(
        f"encoders/{name}/vit/" for name in filter(None, config.vision.encoders.split("+"))
    )
    given = {}
    others = (*towers, _SENTENCE)
    own = {path: leaf for path, leaf in wanted.items() if not path.startswith(others)}
    init = config.backbone.init
    if public.is_public(init):
        given |= public.read(init, sizes, own, place)
    elif (file := weight_file(config.backbone)) is not None:
        # Of a backbone that sees through other encoders, the file's own tower is left unread.
        unread = ("vision/", "visual_projection/") if towers else ()
        given |= native.read(file, own, unread)
    if config.vision.init != "random":
        for tower in towers:
            mine = [path for path in wanted if path.startswith(tower)]
            own, where = (
                {path.removeprefix(tower): tree[path] for path in mine} for tree in (wanted, place)
            )
            read = tower_files.read_tower(config.vision.init, tower.split("/")[1], own, where)
            given |= {f"{tower}{path}": x for path, x in read.items()}
    if config.instruction.encoder:
        _, weights = minilm.load(config.instruction.encoder)
        given |= {
            f"{_SENTENCE}{path}": jnp.asarray(x, wanted[f"{_SENTENCE}{path}"].dtype)
            for path, x in weights.items()
        }
    return given


def weight_file(config: ml_collections.ConfigDict) -> str | None:
    """The file that `config.backbone.init` means, None for random weights; raises UserError."""
    if config.init == "random":
        return None
    return native.shipped(config.name) if config.init == "shipped" else public.parts(config.init)[0]


def _fill(
    mesh: Mesh, make: functools.partial, wrt: object, place: list, given: dict[str, jax.Array]
) -> list[states.Tree]:
    """Trainable and frozen arrays: from `given` where it has them, else drawn on the mesh."""

    def drawn() -> list[dict[str, jax.Array]]:
        flat = [states.paths(tree) for tree in states.divide(make(), wrt)[1:]]
        return [{path: x for path, x in tree.items() if _name(path) not in given} for tree in flat]

    flat_place = [states.paths(tree) for tree in place]
    wanted = [
        {path: flat_place[i][path] for path in tree} for i, tree in enumerate(jax.eval_shape(drawn))
    ]
    filled = compiler.jit_once(mesh, drawn, out_shardings=wanted)()
    for tree, places in zip(filled, flat_place, strict=True):
        for path in places.keys() - tree.keys():
            tree[path] = sharding.put(given[_name(path)], places[path])
    return [
        states.nest({path: tree[path] for path in places})
        for tree, places in zip(filled, flat_place, strict=True)
    ]


# What a checkpoint calls the frame of its prompts; the message of another one names the field.
FRAME = "data.frame"
_name = states.backbone_name
_SENTENCE = "sentence/"  # Pali's encoder of instructions
