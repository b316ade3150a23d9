"""What a token of the multimodal sequence is: a fact about the input, not about any expert."""

import enum


class TokenKind(enum.IntEnum):
    """Values of a `kinds: (batch, tokens)` int32 array, which travels beside the activations.

    TARGET is a token of the answer where prompt and answer are one sequence (a decoder-only model):
    text that no other token but later ones of the answer may learn of. A decoder of its own has
    nothing else and calls its tokens TEXT.
    """

    PADDING = 0
    TEXT = 1
    VISUAL = 2
    TARGET = 3
