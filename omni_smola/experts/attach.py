"""Which layer gets which experts: a path pattern, and a built model whose layers are replaced.

A backbone knows nothing of experts. It is made of projections, `projection(x, kinds) -> outputs`,
that have `d_in` and `outputs: {name: width}`; feed-forwards, `feed_forward(x, kinds) -> y`, with
`d_model`; and stacks, whose parameters carry a leading layer axis. `attach_*` finds them by duck
typing, so a user's own model can be tuned the same way; a plain `nnx.Linear` is wrapped too, and is
told the kinds of its tokens by `set_kinds` before the model is called.

The path of a linear is the attribute names down to it and the name of the output, for example
`encoder/layers/attention/qkv/q`. A pattern is a regular expression that must match all of it.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.core
from flax import nnx

from omni_smola.errors import UserError
from omni_smola.quick_jit import quick_jit

Array = jax.Array
Residual = Callable[[Array, Array], Mapping[str, Array]]


class KindsVariable(nnx.Variable):
    """The kinds of the tokens at hand, for models whose layers are not passed them."""


class ExpertProjection(nnx.Module):
    """A frozen projection and the experts on some of its outputs."""

    def __init__(self, base: nnx.Module, experts: nnx.Module):
        self.base = base
        self.experts = experts

    def __call__(self, x: Array, kinds: Array) -> dict[str, Array]:
        outputs = dict(self.base(x, kinds))
        for name, residual in self.experts(x, kinds).items():
            outputs[name] = outputs[name] + residual
        return outputs


class ExpertFeedForward(nnx.Module):
    """A frozen feed-forward and an adapter parallel to it."""

    def __init__(self, base: nnx.Module, experts: nnx.Module):
        self.base = base
        self.experts = experts

    def __call__(self, x: Array, kinds: Array) -> Array:
        return self.base(x, kinds) + self.experts(x, kinds)


class ExpertLinear(nnx.Module):
    """A frozen `nnx.Linear` of somebody else's model and its experts; see `set_kinds`."""

    def __init__(self, base: nnx.Linear, experts: nnx.Module):
        self.base = base
        self.experts = experts
        self.kinds = KindsVariable(None)

    def __call__(self, x: Array) -> Array:
        kinds = self.kinds.get_value()
        if kinds is None:
            raise UserError(
                "A wrapped nnx.Linear was called before its tokens' kinds were set: call "
                "omni_smola.experts.attach.set_kinds(model, kinds) with kinds of shape (b, tokens)."
            )
        return self.base(x) + self.experts(x, kinds)["out"]


def set_kinds(model: nnx.Module, kinds: Array) -> None:
    """Tells every wrapped `nnx.Linear` of `model` the kinds (b, tokens) of the next batch."""
    for _, node in nnx.iter_modules(model):
        if isinstance(node, ExpertLinear):
            node.kinds = KindsVariable(kinds)


def set_instruction(model: nnx.Module, instruction: Array, key: Array | None = None) -> None:
    """Tells every `Mole` of `model` the instructions of the next batch.

    What was told is no parameter: split a model into trained and frozen before, and set it where
    the model is called, inside of `jax.jit` and `jax.grad`. In the body of a loop, on a model that
    was made outside of it, set it on a copy: `nnx.merge(*nnx.split(model))`.

    Args:
      model: with MoLE experts, in stacks or not; a model without is left as it is.
      instruction: (b, e) embeddings, one row per example.
      key: of the Gumbel noise, in training only; every layer draws its own. None is no noise.

    Raises:
      UserError: the embeddings have another shape or width than the model was built for.
    """
    for index, (_, node) in enumerate(nnx.iter_modules(model)):
        if hasattr(node, "instruct"):
            node.instruct(instruction, None if key is None else jax.random.fold_in(key, index))


def record_slots(layer: nnx.Module) -> None:
    """Lets the experts of `layer` keep what their slots read of a prompt, for `recorded_slots`.

    For a decoder-only backbone with a cache, which knows no experts: where it reads the prompt, the
    body of its loop over layers records and returns what was recorded beside keys and values; where
    it decodes, the body recalls it. Both change the copy of the layer that the body was given.
    """
    for _, node in _recorders(layer):
        node.record()


def recorded_slots(layer: nnx.Module) -> dict[str, Array]:
    """path -> (b, outputs, slots, r), of all experts of `layer` that mix tokens; {} without."""
    return {path: node.recorded() for path, node in _recorders(layer)}


def recall_slots(layer: nnx.Module, slots: Mapping[str, Array]) -> None:
    """Lets the experts of `layer` combine from what `recorded_slots` gave."""
    for path, node in _recorders(layer):
        node.recall(slots[path])


def _recorders(layer: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    for path, node in nnx.iter_modules(layer):
        if hasattr(node, "recall"):
            yield "/".join(map(str, path)), node


def children(node: nnx.Module, path: str = "", depth: int | None = None) -> Iterator[tuple]:
    """Yields (parent, attribute, child, path, layers) of all modules below, outermost first.

    `layers` is the length of the stack that the child lies in, or None.
    """
    for name, child in nnx.iter_children(node):
        if isinstance(child, nnx.Variable):
            continue
        below = f"{path}/{name}" if path else str(name)
        layers = getattr(child, "stack_length", None) or depth
        yield node, name, child, below, layers
        yield from children(child, below, layers)


def linear_paths(model: nnx.Module) -> dict[str, tuple[int, int]]:
    """Every linear that experts can be attached to: path -> (width in, width out)."""
    found = {}
    for _, _, child, path, _ in children(model):
        for name, width in _outputs(child).items():
            found[_linear_path(child, path, name)] = (_d_in(child), width)
    return found


def attach_to_linears(
    model: nnx.Module,
    patterns: str | Sequence[str],
    make: Callable[..., nnx.Module],
    *,
    rngs: nnx.Rngs,
    routed: bool,
) -> list[str]:
    """Replaces the linears whose path matches by themselves plus experts, in place.

    Args:
      model: a built model, concrete or abstract.
      patterns: regular expressions for whole paths.
      make: (d_in, outputs: {name: width}, rngs=...) -> module (x, kinds) -> {name: residual}; where
        routed, it also takes `prefix`: whether tokens may be `TokenKind.TARGET`, which never
        dispatch.
      rngs: where the experts' initial values come from.
      routed: whether the experts mix tokens (Soft MoE does). Such may not sit on a linear that says
        causal=True; causal="prefix" says that what its input holds of the answer is marked TARGET,
        and what says nothing, as a plain `nnx.Linear`, is taken to be of that sort.

    Returns:
      The paths of the linears that got experts.

    Raises:
      UserError: a pattern matches no linear, or a routed expert would read a causal sequence.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    used, attached, todo = set(), [], []
    for parent, attribute, child, path, layers in children(model):
        chosen = {}
        for name, width in _outputs(child).items():
            full = _linear_path(child, path, name)
            hits = {pattern for pattern in patterns if re.fullmatch(pattern, full)}
            if not hits:
                continue
            if routed and _causal(child) is True:
                raise UserError(
                    f"The pattern {sorted(hits)[0]!r} puts Soft MoE experts on {full}, which reads "
                    "target tokens: a slot sees all tokens, so the future would leak. Choose a "
                    "pattern of encoder linears or of the decoder's cross-attention k and v."
                )
            used |= hits
            chosen[name] = width
            attached.append(full)
        if chosen:
            todo.append((parent, attribute, child, chosen, layers))
    _check_used(patterns, used, list(linear_paths(model)), "linear")
    for parent, attribute, child, chosen, layers in todo:
        rule = {"prefix": _causal(child) == "prefix"} if routed else {}
        experts = _stacked(functools.partial(make, _d_in(child), chosen, **rule), layers, rngs)
        wrapper = ExpertProjection if _is_projection(child) else ExpertLinear
        _replace(parent, attribute, wrapper(child, experts))
    return attached


def attach_to_feed_forwards(
    model: nnx.Module,
    patterns: str | Sequence[str],
    make: Callable[..., nnx.Module],
    *,
    rngs: nnx.Rngs,
) -> list[str]:
    """Puts `make(d_model, rngs=...)` parallel to the feed-forwards whose path matches, in place.

    Returns the paths that got an adapter; raises UserError as `attach_to_linears` does.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    used, todo, paths = set(), [], []
    for parent, attribute, child, path, layers in children(model):
        if not hasattr(child, "is_feed_forward"):
            continue
        paths.append(path)
        hits = {pattern for pattern in patterns if re.fullmatch(pattern, path)}
        if hits:
            used |= hits
            todo.append((parent, attribute, child, path, layers))
    _check_used(patterns, used, paths, "feed-forward")
    for parent, attribute, child, _, layers in todo:
        experts = _stacked(functools.partial(make, child.d_model), layers, rngs)
        _replace(parent, attribute, ExpertFeedForward(child, experts))
    return [path for *_, path, _ in todo]


def _replace(parent: nnx.Module, attribute: str | int, module: nnx.Module) -> None:
    if isinstance(attribute, int):  # an element of an nnx.List
        parent[attribute] = module
    else:
        setattr(parent, attribute, module)


def _causal(module: nnx.Module) -> bool | str:
    return getattr(module, "causal", "prefix")


def _is_projection(module: nnx.Module) -> bool:
    return hasattr(module, "d_in") and hasattr(module, "outputs")


def _outputs(module: nnx.Module) -> Mapping[str, int]:
    if _is_projection(module):
        return module.outputs
    return {"out": module.out_features} if isinstance(module, nnx.Linear) else {}


def _linear_path(module: nnx.Module, path: str, output: str) -> str:
    return f"{path}/{output}" if _is_projection(module) else path


def _d_in(module: nnx.Module) -> int:
    return module.d_in if _is_projection(module) else module.in_features


def _stacked(make: Callable[..., nnx.Module], layers: int | None, rngs: nnx.Rngs) -> nnx.Module:
    def made(rngs: nnx.Rngs) -> nnx.Module:
        if layers is None:
            return make(rngs=rngs)
        build = nnx.vmap(lambda rngs: make(rngs=rngs), in_axes=0, out_axes=0, axis_size=layers)
        return nnx.split_rngs(splits=layers)(build)(rngs)

    return _drawn(made, rngs)


def _drawn(made: Callable[[nnx.Rngs], nnx.Module], rngs: nnx.Rngs) -> nnx.Module:
    """`made(rngs)`, outside of traces as one program: many small ones compile slowly."""
    rngs_graph, rngs_state = nnx.split(rngs)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(rngs_state)):
        return made(rngs)
    structure = []

    def draw(rngs_state: nnx.State) -> tuple[nnx.State, nnx.State]:
        rngs = nnx.merge(rngs_graph, rngs_state)
        graph, state = nnx.split(made(rngs))
        structure.append(graph)
        return state, nnx.state(rngs)

    state, after = quick_jit(draw)(rngs_state)
    nnx.update(rngs, after)
    return nnx.merge(structure[0], state)


def _check_used(patterns: Sequence[str], used: set[str], paths: Sequence[str], what: str) -> None:
    for pattern in patterns:
        if pattern not in used:
            raise UserError(
                f"The expert pattern {pattern!r} matches no {what} of the model; its {what}s are: "
                f"{', '.join(paths) or 'none'}. Set --config.experts.where to a regular expression "
                "that matches a whole path."
            )
