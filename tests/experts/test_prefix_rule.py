"""Omni-SMoLA where prompt and answer are one sequence: answers take from slots and never give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from omni_smola.experts.smola import SmolaConfig
from omni_smola.token_kinds import TokenKind

from .test_smola import (
    OUTPUTS,
    by_loops,
    every_gradient,
    parameters,
    random_batch,
    random_experts,
    residuals,
)


def answered(seed=1):
    """A batch whose last four tokens are an answer, behind an example of every kind of prompt."""
    x, kinds = random_batch(seed)
    kinds[:, -4:] = TokenKind.TARGET
    kinds[2, 0] = TokenKind.TEXT
    return x, kinds


def with_rule(experts):
    """The same parameters, where tokens may be of an answer."""
    made = nnx.merge(*nnx.split(experts))
    made.prefix = True
    return made


@pytest.mark.parametrize("more", [{}, {"share_router": True, "router_rank": 2}])
def test_without_an_answer_the_rule_changes_no_bit(more):
    experts = random_experts(SmolaConfig(2, 3, 4, rank=2, **more))
    x, kinds = random_batch()
    got, want = (every_gradient(e, x, kinds) for e in (with_rule(experts), experts))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    got, want = (residuals(e, x, kinds) for e in (with_rule(experts), experts))
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("share_router", [False, True])
def test_an_answer_takes_as_text_does_from_slots_of_the_prompt(share_router):
    experts = random_experts(SmolaConfig(2, 3, 4, rank=2, share_router=share_router))
    x, kinds = answered()
    prompt = kinds != TokenKind.TARGET
    got = residuals(with_rule(experts), x, kinds)
    alone = by_loops(experts, x, np.where(prompt, kinds, TokenKind.PADDING))
    # Slots that read the prompt and nothing else, each token of the answer one more reader.
    w_out = parameters(experts)["w_out"]
    as_text = np.where(prompt, kinds, TokenKind.TEXT)
    recorded = with_rule(experts)
    recorded.record()
    recorded(x, kinds)
    _, combine = (np.asarray(w, np.float64) for w in experts.routing(x, as_text))
    for j, name in enumerate(OUTPUTS):
        slots = np.einsum("bkr,kro->bko", recorded.recorded()[:, j], w_out[name])
        want = np.einsum("bmk,bko->bmo", combine[:, :, 0 if share_router else j], slots)
        np.testing.assert_allclose(got[name][prompt], alone[name][prompt], rtol=0, atol=1e-5)
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5)
        assert np.all(np.any(np.asarray(got[name])[:3, -4:] != 0, axis=2))
        # An example of nothing but padding and an answer has empty slots.
        assert np.all(got[name][3] == 0)


@pytest.mark.parametrize("rule", [True, False])
def test_an_answer_reaches_no_other_token_and_would_without_the_rule(rule):
    experts = random_experts(SmolaConfig(2, 3, 4, rank=2))
    experts = with_rule(experts) if rule else experts
    x, kinds = answered()

    @jax.jit
    def influence(x):
        """Of every token on every other: (m, b, m)."""
        of_token = lambda x: jnp.sum(experts(x, kinds)["q"] ** 2, axis=(0, 2))  # noqa: E731
        return jnp.max(jnp.abs(jax.jacrev(of_token)(x)), axis=-1)

    found = np.asarray(influence(x))
    itself = np.eye(9, dtype=bool)[:, -4:]
    for example in range(3):
        leaked = found[:, example, -4:][~itself]
        assert np.all(leaked == 0) if rule else np.any(leaked != 0)


def test_what_was_recorded_of_a_prompt_serves_its_answer_token_by_token():
    experts = with_rule(random_experts(SmolaConfig(2, 3, 4, rank=2, router_rank=2)))
    x, kinds = answered()
    want = residuals(experts, x, kinds)
    prompt, answer = nnx.merge(*nnx.split(experts)), nnx.merge(*nnx.split(experts))
    prompt.record()
    prompt(x[:, :5], kinds[:, :5])
    assert prompt.recorded().shape == (5, 2, 9, 2)
    answer.recall(prompt.recorded())
    for token in range(5, 9):
        got = answer(x[:, token : token + 1], kinds[:, token : token + 1])
        for name in OUTPUTS:
            np.testing.assert_allclose(got[name][:, 0], want[name][:, token], rtol=0, atol=1e-5)
