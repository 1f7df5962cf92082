"""A plain PyTorch Llama: the yardstick for golden losses (tests/golden) and for speed (bench).

Parameter names are Hugging Face's. Grouped-query attention, half-layout rope (plain or llama3),
SwiGLU, tied or untied head, optional biases, packed documents. Training only: no cache, no text.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

IGNORED_TARGET = -100


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Hugging Face's keys. The defaults are the quickstart model."""

    vocab_size: int = 4096
    hidden_size: int = 384
    intermediate_size: int = 1024
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # llama3, or None for plain rope
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02


def llama3_frequencies(inverse, scaling):
    """Llama 3.1's rule: long waves are stretched by `factor`, short ones kept, blended between."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wave_ratio = scaling["original_max_position_embeddings"] / (2 * math.pi / inverse)
    # The share of the unscaled frequency: 0 for the longest waves, 1 for the shortest.
    kept = ((wave_ratio - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * inverse / scaling["factor"] + kept * inverse


def rope_tables(config, positions):
    """cos and sin of every angle, each (tokens, head_dim / 2); fp32 whatever the model's dtype."""
    exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    inverse = 1.0 / config.rope_theta**exponents
    if config.rope_scaling:
        inverse = llama3_frequencies(inverse, config.rope_scaling)
    angles = positions.float()[:, None] * inverse[None, :]
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """x: (batch, heads, tokens, head_dim); the pair of channel i is channel i + head_dim / 2."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def split_heads(x, head_dim):
    """(batch, tokens, heads * head_dim) -> (batch, heads, tokens, head_dim)."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=bias)

    def forward(self, x, rope, mask):
        """x: (batch, tokens, hidden); mask: (tokens, tokens), true where seen; None: causal."""
        width = self.config.head_dim
        q = rotate(split_heads(self.q_proj(x), width), *rope)
        k = rotate(split_heads(self.k_proj(x), width), *rope)
        v = split_heads(self.v_proj(x), width)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=q.shape[1] != k.shape[1]
        )
        return self.o_proj(y.transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        sizes, bias = (config.hidden_size, config.intermediate_size), config.mlp_bias
        self.gate_proj = nn.Linear(*sizes, bias=bias)
        self.up_proj = nn.Linear(*sizes, bias=bias)
        self.down_proj = nn.Linear(*reversed(sizes), bias=bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x, rope, mask):
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Everything below the head, under the prefix `model.` that Hugging Face gives it."""

    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, tokens, rope, mask):
        x = self.embed_tokens(tokens)  # (batch, tokens, hidden)
        for layer in self.layers:
            x = layer(x, rope, mask)
        return self.norm(x)


class Llama(nn.Module):
    """Maps tokens and targets, both (batch, tokens), to the mean loss over targets not ignored.

    `documents` are the lengths of the documents that every sequence is packed from: attention does
    not cross their borders and positions start anew. None: one document per sequence.
    `chunked_loss` computes head and cross entropy in pieces instead of holding all logits.
    """

    def __init__(self, config, sequence_len, documents=None, chunked_loss=False):
        super().__init__()
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.chunked_loss = chunked_loss
        cos, sin = rope_tables(config, packed_positions(documents or [sequence_len]))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("mask", packed_mask(documents), persistent=False)

    def forward(self, tokens, targets):
        x = self.model(tokens, (self.cos, self.sin), self.mask).flatten(0, 1)
        if self.chunked_loss:
            return F.linear_cross_entropy(
                x,
                self.lm_head.weight,
                targets.flatten(),
                ignore_index=IGNORED_TARGET,
                options=nn.LinearCrossEntropyOptions(),
            )
        logits = self.lm_head(x)  # (batch * tokens, vocab)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED_TARGET)


def packed_positions(documents):
    return torch.cat([torch.arange(length) for length in documents])


def packed_mask(documents):
    if documents is None:
        return None  # the causal kernel needs no mask
    owner = torch.repeat_interleave(torch.tensor(documents))  # (tokens): the document of each token
    return (owner[:, None] == owner[None, :]).tril()


def decay_groups(model, weight_decay):
    """Matrices (the embedding too) decay; norms and biases do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
