"""Makes llama4_logits.json: logits of small Llama 4 models from Hugging Face's transformers.

The weights are Caravan's: element e (row-major) of a parameter is number e of the stream that its
name selects, times initializer_range, and 1 more for norms. What transformers keeps in one tensor,
gate_up_proj, is made from Caravan's two. Nothing is trained; every variant is one forward pass in
float32 over the same tokens.
"""

import json
import math
import pathlib
import platform
import sys

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from philox import RandomPurpose, RandomStream, stable_hash  # noqa: E402

INIT_SEED, DATA_SEED = 1, 1234
NUM_SEQUENCES, SEQUENCE_LEN = 2, 40
COLUMNS = [0, 5, 17, 33, 47]  # logits that are stored of every position

SMALL = dict(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=24,
    intermediate_size_mlp=40,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    initializer_range=0.2,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    rope_theta=500000.0,
    rope_scaling=None,
    attention_bias=False,
    num_local_experts=8,
    num_experts_per_tok=1,
    interleave_moe_layer_step=1,
    moe_layers=None,
    no_rope_layers=[],
    no_rope_layer_interval=4,
    attention_chunk_size=None,
    layer_types=[],
    use_qk_norm=True,
    attn_temperature_tuning=True,
    floor_scale=8192,
    attn_scale=0.1,
)


def llama3(factor, low, high, original):
    return dict(
        rope_type="llama3",
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=original,
    )


# Short chunks, and steps of the temperature that come every few tokens.
LONG = dict(attention_chunk_size=12, no_rope_layer_interval=2, floor_scale=5, attn_scale=0.4)


def variants():
    chunked, full = "chunked_attention", "full_attention"
    changes = {
        "dense": dict(moe_layers=[]),
        "dense_long": dict(moe_layers=[], **LONG),
        "dense_plain_attention": dict(
            moe_layers=[],
            use_qk_norm=False,
            attn_temperature_tuning=False,
            num_key_value_heads=4,
            tie_word_embeddings=True,
        ),
        "dense_scaled_rope": dict(
            moe_layers=[], rope_scaling=llama3(8.0, 1.0, 4.0, 16), use_qk_norm=False, **LONG
        ),
        "dense_listed_layers": dict(
            moe_layers=[],
            no_rope_layers=[0, 1, 1, 0],
            layer_types=[chunked, full, chunked, full],
            attention_bias=True,
            **LONG,
        ),
        "top1": dict(rope_scaling=llama3(16.0, 1.0, 1.0, 16), **LONG),
        "top2_between_dense": dict(
            num_experts_per_tok=2, interleave_moe_layer_step=2, use_qk_norm=False, **LONG
        ),
        "top3_listed_layers": dict(num_experts_per_tok=3, moe_layers=[0, 3], **LONG),
    }
    return {name: SMALL | change for name, change in changes.items()}


def initial_value(model, name, shape):
    stream = RandomStream(INIT_SEED, RandomPurpose.INIT, stable_hash(name))
    value = model["initializer_range"] * stream.normal(np.arange(math.prod(shape)))
    offset = 1.0 if "norm" in name else 0.0
    return torch.from_numpy((offset + value.reshape(shape)).astype(np.float32))


def parameter_value(model, name, shape):
    if not name.endswith("gate_up_proj"):
        return initial_value(model, name, shape)
    half = (*shape[:-1], shape[-1] // 2)
    parts = [initial_value(model, name.replace("gate_up", part), half) for part in ("gate", "up")]
    return torch.cat(parts, dim=-1)


def build(model):
    numbers = {key: value for key, value in model.items() if value not in ([], None)}
    numbers["moe_layers"] = model["moe_layers"]  # where an empty list is not an absent one
    if model["attention_chunk_size"] is None:  # transformers cannot mask without a size
        numbers["attention_chunk_size"] = model["max_position_embeddings"]
    config = transformers.Llama4TextConfig(
        **numbers, attn_implementation="eager", bos_token_id=None, eos_token_id=None
    )
    network = transformers.Llama4ForCausalLM(config).to(torch.float32).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(parameter_value(model, name, tuple(parameter.shape)))
    return network


def tokens(vocab_size):
    """(sequences, length + 1): inputs and, one further, targets."""
    u = RandomStream(DATA_SEED, RandomPurpose.TEST, 0).uniform(
        np.arange(NUM_SEQUENCES * (SEQUENCE_LEN + 1))
    )
    return torch.from_numpy((vocab_size * u).astype(np.int64)).reshape(NUM_SEQUENCES, -1)


def expect_clear_picks(network, ids, model):
    """Where the last pick is hardly better than the next, rounding would choose."""
    if not (model["moe_layers"] is None or model["moe_layers"]):
        return
    smallest = math.inf

    def look(router, inputs, outputs):
        nonlocal smallest
        ranked = outputs[1].sort(dim=-1, descending=True).values
        margin = ranked[:, router.top_k - 1] - ranked[:, router.top_k]
        smallest = min(smallest, margin.min().item())

    for layer in network.model.layers:
        if layer.is_moe_layer:
            layer.feed_forward.router.register_forward_hook(look)
    network(ids)
    assert 3e-5 < smallest < math.inf, f"picks are too close: {smallest}"


def rounded(tensor):
    return [float(f"{value:.7g}") for value in tensor.flatten().tolist()]


@torch.no_grad()
def record(model):
    network = build(model)
    both = tokens(model["vocab_size"])
    ids, targets = both[:, :-1], both[:, 1:]
    expect_clear_picks(network, ids, model)
    logits = network(ids).logits
    picked = torch.log_softmax(logits, dim=-1).gather(-1, targets[..., None])
    return {
        "model": model,
        "target_log_probabilities": rounded(picked),
        "logits": rounded(logits[..., COLUMNS]),
    }


def main():
    torch.set_num_threads(1)
    content = {
        "made_with": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "sequence_len": SEQUENCE_LEN,
        "tokens": tokens(SMALL["vocab_size"]).tolist(),
        "columns": COLUMNS,
        "variants": {name: record(model) for name, model in variants().items()},
    }
    # A line for every list of numbers.
    text = json.dumps(content, separators=(",", ":"))
    text = text.replace('],"', '],\n"').replace('},"', '},\n"')
    (HERE / "llama4_logits.json").write_text(text + "\n")
    print(f"wrote {HERE / 'llama4_logits.json'}")


if __name__ == "__main__":
    main()
