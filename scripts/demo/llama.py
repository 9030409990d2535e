"""A compact Llama for training; its parameters carry the Hugging Face names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 3072,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "use_cache": True,
    "torch_dtype": "bfloat16",
}


def compute_dtype(x):
    """The type that matrix products run in: bf16 under autocast."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class RMSNorm(nn.Module):
    """Root-mean-square norm with a gain per channel."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps).to(compute_dtype(x))


def rope_table(config: dict, length: int):
    """Cosines and sines of shape (length, head_dim) in the rotate-half layout."""
    half = config["head_dim"] // 2
    rates = config["rope_theta"] ** (-torch.arange(half) / half)
    angles = torch.outer(torch.arange(length), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Apply the rotary position embedding."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal attention with grouped key and value heads."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, self.dim = config["hidden_size"], config["head_dim"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        repeat = self.heads // self.kv_heads
        k = rotate(k, cos, sin).repeat_interleave(repeat, dim=1)
        v = v.repeat_interleave(repeat, dim=1)
        out = F.scaled_dot_product_attention(rotate(q, cos, sin), k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, config: dict):
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, config: dict):
        super().__init__()
        self.input_layernorm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.mlp = Mlp(config)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: dict):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])


class Llama(nn.Module):
    """Llama with the output layer tied to the embedding."""

    def __init__(self, config: dict, weak_share: float = 0.0, weak_gain: float = 1.0):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.initialise(weak_share, weak_gain)

    def initialise(self, weak_share: float, weak_gain: float) -> None:
        """Normal weights; a share of each norm's channels starts weak.

        A weak channel has a small gain, and the weights that read it are drawn
        with a deviation as much larger, so all channels count alike at first.
        Channels of different strength are what large language models come to
        after long training, and what makes plain rounding hurt.
        """
        deviation = self.config["initializer_range"]
        depth = (2 * self.config["num_hidden_layers"]) ** -0.5
        for value in self.model.layers.parameters():
            if value.dim() == 2:
                nn.init.normal_(value, std=deviation)
        # rows far apart from the start keep words of one kind, such as names, apart
        nn.init.normal_(self.model.embed_tokens.weight, std=self.config["hidden_size"] ** -0.5)
        for layer in self.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            readers = {
                layer.input_layernorm: (attention.q_proj, attention.k_proj, attention.v_proj),
                layer.post_attention_layernorm: (mlp.gate_proj, mlp.up_proj),
            }
            for norm, linears in readers.items():
                gain = norm.weight.data
                gain[torch.rand_like(gain) < weak_share] = weak_gain
                for linear in linears:
                    linear.weight.data.div_(gain)
            attention.o_proj.weight.data.mul_(depth)
            mlp.down_proj.weight.data.mul_(depth)

    def forward(self, tokens):
        cos, sin = rope_table(self.config, tokens.shape[1])
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)
