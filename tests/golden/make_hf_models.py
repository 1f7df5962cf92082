"""Makes tests/golden/hf: small models as Hugging Face's transformers saves them, and their logits.

A folder per model: config.json and safetensors as save_pretrained writes them, and golden.json:
versions, input ids, and logits of one forward pass in float32 over the weights as they are stored
(those of bf16 and fp16 folders rounded). Two folders also have config-4.json, the same config as
versions 4 of transformers write it, and reference.npz: input ids and all logits. Weights are random and nothing is trained; a second run gives
the same numbers.
"""

import json
import math
import pathlib
import platform
import shutil

import numpy
import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
SEED, NUM_SEQUENCES, SEQUENCE_LEN = 7, 2, 24
COLUMNS = [0, 3, 17, 31, 47]  # logits that are stored of every position

LLAMA = dict(
    vocab_size=48,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.25,
    rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type="default", rope_theta=10000.0),
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
)

LLAMA4 = LLAMA | dict(
    intermediate_size=12,
    intermediate_size_mlp=20,
    head_dim=8,
    num_local_experts=4,
    num_experts_per_tok=1,
    interleave_moe_layer_step=1,
    attention_chunk_size=64,
    rope_parameters=dict(rope_type="default", rope_theta=500000.0),
)

SCALED_ROPE = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)

VISION = dict(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    vision_output_dim=16,
    projector_input_dim=16,
    projector_output_dim=16,
    image_size=4,
    patch_size=2,
)

# By folder: the class, what differs from LLAMA or LLAMA4, dtype, largest shard.
MODELS = {
    "llama_gqa": ("llama", {}, "float32", None),
    "llama_mha_biases": (
        "llama",
        dict(num_key_value_heads=4, attention_bias=True, mlp_bias=True),
        "float32",
        None,
    ),
    "llama_scaled_rope": (
        "llama",
        dict(rope_parameters=SCALED_ROPE, head_dim=8, eos_token_id=[2, 5]),
        "float32",
        None,
    ),
    "llama_tied": ("llama", dict(tie_word_embeddings=True, bos_token_id=None), "float32", None),
    "llama_bf16_sharded": ("llama", {}, "bfloat16", "2KB"),
    "llama_fp16": ("llama", {}, "float16", None),
    "llama4_top1": (
        "llama4_text",
        dict(no_rope_layer_interval=2, floor_scale=5, attn_scale=0.4),
        "float32",
        None,
    ),
    "llama4_top2_dense": (
        "llama4_text",
        dict(
            num_experts_per_tok=2,
            interleave_moe_layer_step=2,
            num_hidden_layers=3,
            attention_chunk_size=10,
            no_rope_layer_interval=3,
            rope_parameters=SCALED_ROPE | dict(low_freq_factor=1.0, high_freq_factor=1.0),
            use_qk_norm=False,
        ),
        "float32",
        None,
    ),
    "llama4_multimodal": ("llama4", dict(num_hidden_layers=1), "float32", None),
}

# Two of them in the words of version 4, too, and with all logits.
OLD_KEYS = {"llama_scaled_rope", "llama4_top2_dense"}


def network_of(kind, changes):
    if kind == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(LLAMA | changes)))
    text = transformers.Llama4TextConfig(**(LLAMA4 | changes))
    if kind == "llama4_text":
        return transformers.Llama4ForCausalLM(text)
    vision = transformers.models.llama4.Llama4VisionConfig(**VISION)
    return transformers.Llama4ForConditionalGeneration(
        transformers.Llama4Config(text_config=text.to_dict(), vision_config=vision.to_dict())
    )


def fill(network, seed):
    """Weights of a spread that makes logits differ; biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            value = 0.25 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(value + (1.0 if "norm" in name else 0.0))


def old_config(config):
    """The same keys as versions 4 write them."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    rope = dict(config["rope_parameters"])
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    old["torch_dtype"] = config["dtype"]
    old["transformers_version"] = "4.57.3"
    return old


def expect_clear_picks(network, ids):
    """Where the last pick of a router is hardly better than the next, rounding would choose."""
    smallest = math.inf

    def look(router, inputs, outputs):
        nonlocal smallest
        ranked = outputs[1].sort(dim=-1, descending=True).values
        margin = ranked[:, router.top_k - 1] - ranked[:, router.top_k]
        smallest = min(smallest, margin.min().item())

    for name, module in network.named_modules():
        if name.endswith("feed_forward.router"):
            module.register_forward_hook(look)
    network(ids)
    assert smallest > 1e-4, f"picks are too close: {smallest}"


@torch.no_grad()
def record(name):
    kind, changes, dtype, shard_bytes = MODELS[name]
    folder = HERE / "hf" / name
    network = network_of(kind, changes)
    fill(network, SEED)
    network = network.to(getattr(torch, dtype)).eval()
    shards = {} if shard_bytes is None else dict(max_shard_size=shard_bytes)
    network.save_pretrained(folder, **shards)
    if name in OLD_KEYS:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config-4.json").write_text(json.dumps(old_config(config), indent=2) + "\n")
    # From the files, in float32: what a reader has.
    network = type(network).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(SEED + 1)
    ids = torch.randint(0, LLAMA["vocab_size"], (NUM_SEQUENCES, SEQUENCE_LEN), generator=generator)
    expect_clear_picks(network, ids)
    logits = network(input_ids=ids).logits
    if name in OLD_KEYS:
        numpy.savez(folder / "reference.npz", input_ids=ids.numpy(), logits=logits.numpy())
    logits = logits[..., COLUMNS]
    golden = {
        "made_with": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
        },
        "columns": COLUMNS,
        "input_ids": ids.tolist(),
        "logits": [float(f"{value:.8g}") for value in logits.flatten().tolist()],
    }
    text = json.dumps(golden, separators=(",", ":")).replace('],"', '],\n"')
    (folder / "golden.json").write_text(text + "\n")
    (folder / "generation_config.json").unlink(missing_ok=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {sorted(file.name for file in folder.iterdir())} {size} bytes, "
          f"logits up to {logits.abs().max().item():.3g}")


def main():
    torch.set_num_threads(1)
    shutil.rmtree(HERE / "hf", ignore_errors=True)
    for name in MODELS:
        record(name)


if __name__ == "__main__":
    main()
