"""Starts one measurement each: a training of Caravan or PyTorch, the ceilings, oneDNN, a plan.

All results are the JSON objects that the programs print. Standard library only.
"""

import dataclasses
import json
import os
import subprocess
import sys

from report import ROOT

CONFIG = "configs/quickstart.yaml"
# Stated to both sides, so that neither can drift to other shapes.
QUICKSTART = {
    "vocab_size": 4096,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
LARGER = {  # 123.6 M parameters
    "vocab_size": 50304,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
# glibc gives large freed blocks back to the kernel, and every step faults them in again. These
# settings keep them, as Caravan's arena does.
KEPT_HEAP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(64 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


@dataclasses.dataclass(frozen=True)
class Steps:
    warmup: int
    timed: int


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and the batch of one step over all ranks."""

    model: dict
    batch_size: int  # sequences
    sequence_len: int


def run_command(command, label, environment=None):
    """What the command prints."""
    print(f"  {label} ...", end="", file=sys.stderr, flush=True)
    whole = {**os.environ, **(environment or {})}
    done = subprocess.run(command, env=whole, text=True, capture_output=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"\n{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def run_json(command, label, environment=None):
    """The JSON value on the last line of what the command prints."""
    result = json.loads(run_command(command, label, environment).strip().splitlines()[-1])
    speed = f" {result['tok_s']:,.0f} tokens/s" if "tok_s" in result else " done"
    print(speed, file=sys.stderr)
    return result


def started_by(ranks):
    return [] if ranks == 1 else ["mpirun", "-n", str(ranks), "--bind-to", "none"]


def words(overrides):
    """As the command line takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def overrides(size, ranks, threads):
    return words({
        **{f"model.{key}": value for key, value in size.model.items()},
        "model.max_position_embeddings": size.sequence_len,
        "train.micro_batch_size": size.batch_size // ranks,
        "train.global_batch_size": size.batch_size,
        "data.sequence_len": size.sequence_len,
        "runtime.threads": threads,
    })


def run_caravan(size, threads, steps, ranks=1):
    command = [*started_by(ranks), "build/bench_step", f"warmup={steps.warmup}"]
    command += [f"steps={steps.timed}", CONFIG, *overrides(size, ranks, threads)]
    label = f"Caravan, {ranks} x {threads} threads, {size.batch_size} x {size.sequence_len}"
    return run_json(command, label, {"OMP_NUM_THREADS": str(threads)})


# Ways to run PyTorch: whether compiled, and whether the loss is computed in pieces or from all
# logits at once.
PEER_WAYS = {
    "eager": ("eager", "logits"),
    "compile": ("compile", "logits"),
    "eager, loss in pieces": ("eager", "chunked"),
    "compile, loss in pieces": ("compile", "chunked"),
}


def run_peer(python, size, threads, steps, way):
    mode, loss = PEER_WAYS[way]
    command = [python, "bench/peer_pytorch.py", "--model", json.dumps(size.model)]
    command += ["--batch_size", str(size.batch_size), "--sequence_len", str(size.sequence_len)]
    command += ["--threads", str(threads), "--mode", mode, "--loss", loss]
    command += ["--warmup", str(steps.warmup), "--steps", str(steps.timed)]
    environment = {"OMP_NUM_THREADS": str(threads), **KEPT_HEAP}
    return run_json(command, f"PyTorch, {way}", environment)


def run_ceilings(threads):
    return run_json(["build/bench_ceilings", str(threads)], "ceilings")


def run_onednn(products, threads):
    """GF/s of oneDNN's fastest way by product, and oneDNN's version."""
    words = [",".join(map(str, product)) for product in products]
    result = run_json(["build/bench_onednn", str(threads), *words], "oneDNN alone")
    speeds = {tuple(one["product"]): one["gflops"] for one in result["products"]}
    return {"gflops": speeds, "version": result["version"]}


def run_pools(size, threads, dp):
    """`size` is what each of the dp ranks gets."""
    whole = dataclasses.replace(size, batch_size=size.batch_size * dp)
    command = ["build/bench_pools", CONFIG, *overrides(whole, dp, threads)]
    return run_json([*command, f"parallel.dp={dp}", "parallel.zero=1"], f"plan for dp {dp}")
