"""Runs Caravan and PyTorch in turn on one model and writes the comparison into a Markdown file.

Called by run.sh, needs only the standard library. The two alternate, so that a slow minute of the
machine hits both. PyTorch runs eager and compiled, heap kept or not; the fastest way is its result.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = {  # stated to both sides, so that neither can drift to other shapes
    "vocab_size": 4096,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
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


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--caravan", default=str(ROOT / "build/bench_step"))
    parser.add_argument("--config", default=str(ROOT / "configs/quickstart.yaml"))
    parser.add_argument("--python", required=True, help="an interpreter that has torch")
    parser.add_argument("--results", default=str(ROOT / "bench/RESULTS.md"))
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_len", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a PyTorch run")
    return parser.parse_args()


def run_json(command, environment, label):
    """The JSON object on the last line of what the command prints."""
    print(f"  {label} ...", end="", file=sys.stderr, flush=True)
    whole = {**os.environ, **environment}
    done = subprocess.run(command, env=whole, text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"\n{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f" {result['tok_s']:,.0f} tokens/s", file=sys.stderr)
    return result


def run_caravan(arguments):
    sizes = {
        **{f"model.{key}": value for key, value in MODEL.items()},
        "train.micro_batch_size": arguments.batch_size,
        "train.global_batch_size": arguments.batch_size,
        "data.sequence_len": arguments.sequence_len,
        "runtime.threads": arguments.threads,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in sizes.items()]
    command = [arguments.caravan, arguments.config, *overrides]
    return run_json(command, {"OMP_NUM_THREADS": str(arguments.threads)}, "Caravan")


def run_peer(arguments, variant):
    command = [arguments.python, str(ROOT / "bench/peer_pytorch.py"), "--model", json.dumps(MODEL)]
    for key in ("batch_size", "sequence_len", "threads", "steps"):
        command += [f"--{key}", str(getattr(arguments, key))]
    command += ["--mode", variant["mode"]]
    environment = {"OMP_NUM_THREADS": str(arguments.threads), **variant["malloc"]}
    return run_json(command, environment, "PyTorch " + variant["name"])


def peer_variants():
    for mode in ("eager", "compile"):
        for heap, malloc in (("default heap", {}), ("kept heap", KEPT_HEAP)):
            yield {"name": f"{mode}, {heap}", "mode": mode, "malloc": malloc}


def run_in_turn(arguments):
    """Caravan's runs, and PyTorch's by variant name."""
    caravan, peers = [], {}
    for _ in range(arguments.rounds):
        for variant in peer_variants():
            caravan.append(run_caravan(arguments))
            peers.setdefault(variant["name"], []).append(run_peer(arguments, variant))
    return caravan, peers


def median_of(runs, key):
    return statistics.median(run[key] for run in runs)


def mebibytes(num_bytes):
    return f"{num_bytes / 2**20:,.0f}"


def ratio(ours, theirs):
    return f"{ours / theirs:.2f}"


def table_rows(caravan, peer):
    """(label, Caravan, PyTorch, ratio) as text."""
    speed, peer_speed = median_of(caravan, "tok_s"), median_of(peer, "tok_s")
    step, peer_step = median_of(caravan, "step_ms"), median_of(peer, "step_ms")
    resident = median_of(caravan, "peak_rss_bytes")
    peer_resident = median_of(peer, "peak_rss_bytes")
    yield "tokens/s", f"{speed:,.0f}", f"{peer_speed:,.0f}", ratio(speed, peer_speed)
    yield "step, ms", f"{step:,.0f}", f"{peer_step:,.0f}", ratio(step, peer_step)
    yield "memory planned, MiB", mebibytes(median_of(caravan, "planned_bytes")), "not known", ""
    yield (
        "peak resident set, MiB",
        mebibytes(resident),
        f"{mebibytes(peer_resident)} ({mebibytes(median_of(peer, 'import_rss_bytes'))} on import)",
        ratio(resident, peer_resident),
    )
    families = caravan[0]["families"]
    times = {name: median_of([run["families"] for run in caravan], name) for name in families}
    for name in sorted(times, key=times.get, reverse=True):
        yield f"of the step: {name}, ms", f"{times[name]:,.1f}", "", ""


def table(caravan, peer):
    lines = [f"| | Caravan | PyTorch {peer[0]['torch']} | ratio |", "|---|--:|--:|--:|"]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(caravan, peer)]
    return "\n".join(lines)


def git(*words):
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, text=True, capture_output=True).stdout.strip()


def machine_line(load):
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    name = cpu.group(1) if cpu else platform.machine()
    cores = len(os.sched_getaffinity(0))
    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = " with local changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (
        f"{name}, {cores} cores, load {load:.2f} at the start; {datetime.date.today()}; "
        f"commit {commit}{changed}; {platform.platform()}."
    )


def warn_if_busy(load):
    if load > 0.25 * len(os.sched_getaffinity(0)):
        print(f"The load is {load:.2f}: other programs distort these numbers.", file=sys.stderr)


def spread(runs):
    speeds = sorted(run["tok_s"] for run in runs)
    return f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}"


def heading(arguments):
    return (
        f"## Quickstart model, batch {arguments.batch_size} x {arguments.sequence_len}, "
        f"1 process x {arguments.threads} threads"
    )


def section(arguments, caravan, peers, load):
    speeds = {name: median_of(runs, "tok_s") for name, runs in peers.items()}
    best = max(speeds, key=speeds.get)
    all_ways = "; ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
    return f"""{heading(arguments)}

{table(caravan, peers[best])}

Medians of {len(caravan)} runs of Caravan and {arguments.rounds} of each way to run PyTorch, in
turn; fp32, random tokens, no data loading on either side. Ratio: Caravan / PyTorch. In the table: {best}.
Times by op family come from an extra step in which every op is timed by itself.
Spread in tokens/s: Caravan {spread(caravan)}, PyTorch {spread(peers[best])}.
PyTorch, all ways, tokens/s: {all_ways}.
{machine_line(load)}
"""


def with_section(text, title, content):
    """The text with the section of that title replaced, or added at the end."""
    start = text.find(title + "\n")
    if start < 0:
        return text.rstrip() + "\n\n" + content
    end = text.find("\n## ", start + len(title))
    rest = text[end + 1 :] if end >= 0 else ""
    return text[:start] + content + ("\n" + rest if rest else "")


def write_results(path, title, content):
    path = pathlib.Path(path)
    text = path.read_text() if path.exists() else "# Measured\n\nMade by `bench/run.sh`.\n"
    path.write_text(with_section(text, title, content))


def main():
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    warn_if_busy(load)
    caravan, peers = run_in_turn(arguments)
    content = section(arguments, caravan, peers, load)
    write_results(arguments.results, heading(arguments), content)
    print(content)


if __name__ == "__main__":
    main()
