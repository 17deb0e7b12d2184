"""A structured start for the tiny language model: look-back heads and induction heads.

In the spirit of mimetic initialisation (Trockman and Kolter, arXiv 2305.09828). The heads of the first layer
start as look-back heads, made by biases and RoPE; those of the second and fourth start as induction heads
(Olsson et al., arXiv 2209.11895): they look for the word that the look-back heads wrote, and copy what stood
before it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

EMBEDDING_STD = 0.08
_VALUE_STD = 0.08
# Norms by which features are brought to one scale before they serve as query or key.
_VALUE_SCALE, _OUTPUT_SCALE = 0.45, 0.177
_FAST = 8  # dimensions of a head that RoPE turns fast


class _Induction(NamedTuple):
    """What an induction head compares and copies: 0 is the position's own word, d the one d before it."""

    query: int
    key: int
    copied: int


_INDUCTION_HEADS = {
    1: (_Induction(0, 1, 3), _Induction(1, 0, 2), _Induction(2, 0, 2), _Induction(2, 0, 3)),
    3: (_Induction(0, 0, 2), _Induction(0, 0, 3), _Induction(2, 0, 2), _Induction(2, 0, 3)),
}  # by the layer's number; the look-back heads are in layer 0


class _LookBack(NamedTuple):
    """The value (size, width) and output (width, size) matrices of a look-back head."""

    value: Tensor
    output: Tensor


def initialise(
    language: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    sharpness: float = 12.0,
    copy_gain: float = 6.0,
) -> None:
    """Start a language model with look-back heads, induction heads, and a residual stream that carries words.

    A look-back head by d has constant query and key biases that RoPE brings into phase at distance d. Its
    value and output matrices, V and R, write the earlier token's features into a subspace of their own. An
    induction head reads features of one position's word (through V) or of an earlier word (through R) as
    query and key, and copies in the same way.

    Args:
        language: the decoder.
        tokenizer: names the words: the forms with and without a leading space start alike.
        sharpness: logit of a match in an induction head.
        copy_gain: gain of what an induction head copies.
    """
    width, heads = language.config.hidden_size, language.config.num_attention_heads
    size = width // heads
    _draw_words(language.embed_tokens.weight, tokenizer.get_vocab())
    look_back: dict[int, _LookBack] = {}  # by distance
    for number, layer in enumerate(language.layers):
        _draw_weights(layer, output_std=EMBEDDING_STD / (_VALUE_STD * (width * size) ** 0.5) / 3)
        for head in range(3 if number == 0 else 0):
            look_back[head + 1] = _make_look_back_head(layer.self_attn, head, size)
        for head, circuit in enumerate(_INDUCTION_HEADS.get(number, ())):
            _make_induction_head(layer.self_attn, head, size, circuit, look_back, sharpness, copy_gain)


def _draw_words(words: Tensor, vocabulary: dict[str, int]) -> None:
    """Draw the embeddings (words, width), those of a word with and without a leading space alike."""
    words.normal_(0, EMBEDDING_STD)
    for token, index in vocabulary.items():
        if len(token) > 2 and f"Ġ{token}" in vocabulary:
            words[index] = 0.8 * words[vocabulary[f"Ġ{token}"]] + 0.6 * words[index]


def _draw_weights(layer: nn.Module, output_std: float) -> None:
    """Draw a layer's matrices, in a fixed order."""
    attention, mlp = layer.self_attn, layer.mlp
    attention.q_proj.weight.normal_(0, 0.04)
    attention.k_proj.weight.normal_(0, 0.04)
    attention.v_proj.weight.normal_(0, _VALUE_STD)
    attention.o_proj.weight.normal_(0, output_std)
    mlp.gate_proj.weight.normal_(0, 0.08)
    mlp.up_proj.weight.normal_(0, 0.08)
    mlp.down_proj.weight.normal_(0, 0.002)


def _make_look_back_head(attention: nn.Module, head: int, size: int) -> _LookBack:
    """Make a head attend to the word `head + 1` positions before."""
    distance, start, half = head + 1, head * size, size // 2
    rows = slice(start, start + size)
    theta = 10_000.0 ** (-torch.arange(half) / half)
    attention.q_proj.weight[rows].normal_(0, 0.02)
    attention.k_proj.weight[rows].normal_(0, 0.02)
    attention.k_proj.bias[start : start + _FAST] = 5.0
    attention.q_proj.bias[start : start + _FAST] = 5.0 * torch.cos(distance * theta[:_FAST])
    attention.q_proj.bias[start + half : start + half + _FAST] = -5.0 * torch.sin(distance * theta[:_FAST])
    attention.o_proj.weight[:, rows] *= 3
    return _LookBack(attention.v_proj.weight[rows].clone(), attention.o_proj.weight[:, rows].clone())


def _make_induction_head(
    attention: nn.Module,
    head: int,
    size: int,
    circuit: _Induction,
    look_back: dict[int, _LookBack],
    sharpness: float,
    copy_gain: float,
) -> None:
    """Make a head look for where two features meet, and copy the word that the circuit names."""
    rows, half = slice(head * size, (head + 1) * size), size // 2
    # The dimensions that RoPE hardly turns: distance does not matter there.
    slow = torch.cat([torch.arange(5, half), torch.arange(half + 5, size)])
    gain = (sharpness * size**0.5 / len(slow)) ** 0.5
    own_word = look_back[circuit.query or circuit.key or 2].value / _VALUE_SCALE
    for projection, distance in ((attention.q_proj, circuit.query), (attention.k_proj, circuit.key)):
        features = look_back[distance].output.T / _OUTPUT_SCALE if distance else own_word
        projection.weight[rows] = 0
        projection.weight[head * size + slow] = gain * features[: len(slow)]
    value, output = look_back[circuit.copied]
    attention.v_proj.weight[rows] = output.T / _OUTPUT_SCALE
    attention.o_proj.weight[:, rows] = copy_gain * EMBEDDING_STD * value.T / (value.norm() / size**0.5)
