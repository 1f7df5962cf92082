"""Mixtures of experts: a step against transformers' Llama 4, and llama4-tiny over processes.

Two questions: how fast and how small is a step beside the reference implementation, and do four
processes (dp x ep, tp x ep) train the same as one. Standard library only.
"""

import json
import pathlib
import statistics
import tempfile

import runs
from report import mebibytes, table

CONFIG = "configs/llama4-tiny.yaml"
# llama4-tiny's width, every layer with 16 experts.
MODEL = {
    "vocab_size": 4096,
    "hidden_size": 384,
    "intermediate_size": 512,
    "intermediate_size_mlp": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_local_experts": 16,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "no_rope_layer_interval": 3,
    "attention_chunk_size": 128,
    "floor_scale": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
BATCH, LENGTH = 8, 256
MESHES = {  # name: overrides, of four processes
    "dp 2 x ep 2": {"parallel.dp": 2, "parallel.ep": 2, "train.micro_batch_size": 2},
    "tp 2 x ep 2": {"parallel.dp": 1, "parallel.tp": 2, "parallel.ep": 2,
                    "train.micro_batch_size": 4},
}
ONE = {"train.micro_batch_size": 8}


def run_step(steps, threads, overrides, label, ranks=1, balanced=False):
    command = [*runs.started_by(ranks), "build/bench_step", f"warmup={steps.warmup}",
               f"steps={steps.timed}", f"balanced={int(balanced)}", CONFIG,
               f"runtime.threads={threads}", *runs.words(overrides)]
    return runs.run_json(command, label, {"OMP_NUM_THREADS": str(threads)})


def run_peer(python, steps, threads, balanced):
    command = [python, "bench/peer_transformers.py", "--model",
               json.dumps({**MODEL, "pad_token_id": 0, "max_position_embeddings": 512}),
               "--batch_size", str(BATCH), "--sequence_len", str(LENGTH), "--threads",
               str(threads), "--warmup", str(steps.warmup), "--steps", str(steps.timed)]
    environment = {"OMP_NUM_THREADS": str(threads), **runs.KEPT_HEAP}
    return runs.run_json([*command, *(["--balanced"] if balanced else [])],
                         f"transformers, {'balanced' if balanced else 'natural'}", environment)


def against_transformers(python, threads, rounds, steps):
    """By routing: all results of (Caravan, transformers)."""
    results = {"natural": ([], []), "balanced": ([], [])}
    overrides = {**{f"model.{key}": value for key, value in MODEL.items()},
                 "model.max_position_embeddings": 512, **ONE}
    for _ in range(rounds):
        for routing, (ours, theirs) in results.items():
            balanced = routing == "balanced"
            ours.append(run_step(steps, threads, overrides, f"Caravan, {routing}",
                                 balanced=balanced))
            theirs.append(run_peer(python, steps, threads, balanced))
    return results


def speeds_of_meshes(threads, rounds, steps):
    """tokens/s by mesh, and of one process ("one"), taken in turn."""
    speeds = {"one": [], **{name: [] for name in MESHES}}
    vocabulary = {"model.vocab_size": 4096}
    for _ in range(rounds):
        speeds["one"].append(run_step(steps, threads, {**vocabulary, **ONE}, "one process"))
        for name, overrides in MESHES.items():
            # 4 processes on 2 processors: one thread each, the system shares them out.
            speeds[name].append(run_step(steps, max(1, threads // 4), {**vocabulary, **overrides},
                                         name, ranks=4))
    return speeds


def losses(overrides, ranks, threads, num_steps):
    """Of each step of a training on the quickstart's data."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*runs.started_by(ranks), "build/caravan", "train", CONFIG,
                   f"output_dir={folder}/run", f"train.max_steps={num_steps}",
                   "train.eval_steps=0", "checkpoint.save_steps=0", "log.logging_steps=1",
                   f"runtime.threads={threads}", *runs.words(overrides)]
        runs.run_command(command, f"{ranks} processes, {num_steps} steps")
        lines = (pathlib.Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return [step["loss"] for step in map(json.loads, lines) if "lr" in step]


def curve_differences(threads, num_steps):
    """By mesh: the largest relative difference of a loss from that of one process."""
    expected = losses(ONE, 1, threads, num_steps)
    differences = {}
    for name, overrides in MESHES.items():
        actual = losses(overrides, 4, max(1, threads // 4), num_steps)
        pairs = list(zip(actual, expected, strict=True))
        differences[name] = [abs(a - b) / b for a, b in pairs]
    return differences


def measure(python, threads, rounds, is_quick):
    steps = runs.Steps(1, 1) if is_quick else runs.Steps(2, 5)
    return {
        "peer": against_transformers(python, threads, rounds, steps),
        "meshes": speeds_of_meshes(threads, rounds, steps),
        "curves": curve_differences(threads, 3 if is_quick else 100),
    }


def median_of(results, key):
    return statistics.median(one[key] for one in results)


def peer_table(peer):
    rows = []
    for routing, (ours, theirs) in peer.items():
        speed = median_of(ours, "tok_s"), median_of(theirs, "tok_s")
        memory = median_of(ours, "peak_rss_bytes"), median_of(theirs, "peak_rss_bytes")
        rows.append([routing, f"{speed[0]:,.0f}", f"{speed[1]:,.0f}",
                     f"{speed[0] / speed[1]:.2f}", mebibytes(memory[0]), mebibytes(memory[1]),
                     f"{memory[0] / memory[1]:.2f}"])
    head = ["routing", "tokens/s", "transformers", "ratio (must 1.5)", "resident, MiB",
            "transformers", "ratio (must 0.7)"]
    return table(head, rows)


def mesh_table(meshes, curves):
    one = median_of(meshes["one"], "tok_s")
    rows = [["one process", f"{one:,.0f}", "1.00", mebibytes(median_of(meshes["one"],
                                                                       "peak_rss_bytes")), "", ""]]
    for name, differences in curves.items():
        speed = median_of(meshes[name], "tok_s")
        memory = mebibytes(median_of(meshes[name], "peak_rss_bytes"))
        rows.append([name, f"{speed:,.0f}", f"{speed / one:.2f}", memory,
                     f"{max(differences[:10]):.1e}", f"{max(differences):.1e}"])
    head = ["mesh", "tokens/s", "of one process (must 0.8)", "resident of a rank, MiB",
            "loss, largest difference in 10 steps",
            f"in {len(next(iter(curves.values())))} (must 1e-5)"]
    return table(head, rows)


def section(results, machine):
    theirs = results["peer"]["natural"][1][0]
    return f"""{machine}

A step of {BATCH} x {LENGTH} tokens, {theirs['parameters'] / 1e6:.1f} M parameters, all layers with
16 experts, top-1 and a shared one; fp32, forward, backward, clipping, AdamW. The other side is
Llama4ForCausalLM of transformers {theirs['transformers']} on PyTorch {theirs['torch']}, sdpa, fused
AdamW, heap kept: it computes every expert on every token. "balanced": tokens are dealt out to
experts in turn on both sides.

{peer_table(results['peer'])}

llama4-tiny (3 of 6 layers with experts), the same batch over four processes of one thread on
{len(MESHES)} meshes, against one process with all threads; its losses on the quickstart's data.

{mesh_table(results['meshes'], results['curves'])}
"""
