"""Called by checkpoint.sh: runs trainings that save and bench_checkpoint, all in turn, and writes
the table of their medians into bench/RESULTS.md."""

import json
import os
import pathlib
import statistics
import subprocess
import sys

import runs
from report import ROOT, machine_line, table, warn_if_busy, write_section

TITLE = "## Checkpoints"
EVERY = 100  # steps
SIZES = {  # name: overrides
    "quickstart": [],
    "123.6 M parameters": [f"model.{k}={json.dumps(v)}" for k, v in runs.LARGER.items()],
}
TRAINING = {  # name: overrides
    "never": ["checkpoint.save_steps=0"],
    "auto": [f"checkpoint.save_steps={EVERY}", "checkpoint.copy_bytes=auto"],
    "0": [f"checkpoint.save_steps={EVERY}", "checkpoint.copy_bytes=0"],
}


def run(command):
    done = subprocess.run(command, text=True, capture_output=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def train(folder, name):
    """Share of the time that training waited, and steps a second, over EVERY steps with one save in
    the middle (for "never": none)."""
    output = folder / "run"
    last = EVERY + EVERY // 2
    command = [*runs.started_by(2), "build/caravan", "train", runs.CONFIG, f"output_dir={output}"]
    command += [f"data.train={folder / 'data'}", f"data.validation={folder / 'data'}"]
    command += ["train.micro_batch_size=1", "train.global_batch_size=2"]
    command += [f"train.max_steps={last}", "train.eval_steps=0", "train.eval_batches=1"]
    run(["rm", "-rf", str(output)])
    run(command + TRAINING[name])
    lines = [json.loads(text) for text in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "step_ms" in line][-EVERY - 1 :]
    wall = steps[-1]["time"] - steps[0]["time"]
    return {
        "wait": sum(step["save_ms"] for step in steps[1:]) / 1e3 / wall,
        "speed": EVERY / wall,
        "step_ms": statistics.median(step["step_ms"] for step in steps),
    }


def files(folder, overrides, ranks):
    command = [*runs.started_by(ranks), "build/bench_checkpoint", str(folder / "files")]
    (folder / "files").mkdir(exist_ok=True)
    result = json.loads(run([*command, runs.CONFIG, *overrides]).splitlines()[-1])
    run(["rm", "-rf", str(folder / "files")])
    return result


def train_rows(trainings):
    def median(name, key):
        return statistics.median(one[key] for one in trainings[name])

    for name in ("auto", "0"):
        yield f"training waits for saving, copy_bytes {name}", f"{median(name, 'wait'):.4%}", "≤ 1 %"
    for name in ("auto", "0"):
        ratios = [a["speed"] / b["speed"] for a, b in zip(trainings[name], trainings["never"])]
        label = f"steps a second, saving / not saving, copy_bytes {name}"
        yield label, f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", ""


def file_rows(size, ranks, results):
    size_bytes = results[0]["bytes"]
    seconds = {
        key: statistics.median(value for one in results for value in one[key])
        for key, values in results[0].items()
        if isinstance(values, list)
    }

    def speed(key):
        return f"{size_bytes / seconds[key] / 2**20:,.0f} MiB/s"

    def ratio(plain, ours):
        return f"{seconds[plain] / seconds[ours]:.2f}"

    where = f"{size}, {ranks} rank{'s' if ranks > 1 else ''}: "
    against = f"{speed('save_write')} / {speed('plain_write')} = {ratio('plain_write', 'save_write')}"
    yield where + "write / write() and fsync()", against, "≥ 0.80"
    against = f"{speed('save')} / {speed('plain_write')} = {ratio('plain_write', 'save')}"
    yield where + "the same until committed, old checkpoint deleted", against, ""
    share = seconds["checksum"] / seconds["save_write"]
    yield where + "checksums, of the write", f"{share:.1%}", "≤ 15 %"
    against = f"{speed('load')} / {speed('plain_read')} = {ratio('plain_read', 'load')}"
    yield where + "checked load / read(), warm, each rank all", against, "≥ 0.80"


def main():
    folder, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    load = os.getloadavg()[0]
    warn_if_busy(load)
    trainings = {name: [] for name in TRAINING}
    results = {(size, ranks): [] for size in SIZES for ranks in (1, 2)}
    for _ in range(rounds):
        for name in TRAINING:
            trainings[name].append(train(folder, name))
        for size, ranks in results:
            results[size, ranks].append(files(folder, SIZES[size], ranks))
    rows = list(train_rows(trainings))
    for (size, ranks), result in results.items():
        rows += file_rows(size, ranks, result)
    step_ms = statistics.median(one["step_ms"] for one in trainings["never"])
    content = f"""{table(["", "measured", "wanted"], rows)}

Made by `bench/checkpoint.sh`. Training: the quickstart model on 2 ranks, {step_ms:.0f} ms a step,
a checkpoint every {EVERY} steps. Files: medians of {7 * rounds} rounds, each side in turn.
{machine_line(load)}
"""
    write_section(ROOT / "bench/RESULTS.md", TITLE, content)


if __name__ == "__main__":
    main()
