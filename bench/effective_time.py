"""Where the time of bench/effective_time.sh went: reads its folder (kills, output with times,
metrics.jsonl of the run) and prints a table of parts that add up to the whole."""

import json
import pathlib
import sys


def read_lines(folder, name):
    return (folder / name).read_text().splitlines()


def attempts_of(folder):
    """Steps of each start: lists of (time of its end, seconds, number)."""
    attempts = []
    for text in read_lines(folder, "run/metrics.jsonl"):
        line = json.loads(text)
        if line.get("event") == "resume" or not attempts:
            attempts.append([])
        if "step_ms" in line:
            attempts[-1].append((line["time"], line["step_ms"] / 1e3, line["step"]))
    return [steps for steps in attempts if steps]


def mean(values):
    return sum(values) / len(values) if values else 0.0


def main():
    folder = pathlib.Path(sys.argv[1])
    begin = float(read_lines(folder, "begin")[0])
    wall = float(read_lines(folder, "end")[0]) - begin
    kills = [float(text) for text in read_lines(folder, "kills")]
    starts = [begin]  # of the program
    for text in read_lines(folder, "output"):
        time, _, message = text.partition(" ")
        if message.startswith("supervise: restart "):
            starts.append(float(time))
    attempts = attempts_of(folder)

    kept, lost = {}, 0.0
    for steps in attempts:
        for step in [old for old in kept if old >= steps[0][2]]:
            lost += kept.pop(step)
        kept.update({number: seconds for _, seconds, number in steps})
    first_steps = [steps[0][0] - steps[0][1] for steps in attempts]
    start_up = [min((first - start for start in starts if start < first)) for first in first_steps]
    # Each death belongs to the next start.
    gone = [min((start - kill for start in starts if start > kill), default=0) for kill in kills]
    to_kill = 0.0  # between the last step's end and the death
    for kill in kills:
        ends = [steps[-1][0] for steps in attempts if steps[-1][0] < kill]
        to_kill += kill - max(ends, default=kill)
    kept_seconds = sum(kept.values())
    rest = wall - kept_seconds - lost - sum(start_up) - sum(gone) - to_kill
    step_ms = 1000 * mean(list(kept.values()))
    rows = [
        ("steps that were kept", kept_seconds, f"{len(kept)} of {step_ms:.0f} ms"),
        ("steps done again", lost, f"{lost / max(1, len(kills)):.2f} s a death"),
        ("steps cut off by a death", to_kill, ""),
        ("from a death to the next start", sum(gone), f"{mean(gone):.2f} s each"),
        ("from a start to its first step", sum(start_up), f"{mean(start_up):.2f} s each"),
        ("saving, between steps, the end", rest, ""),
    ]
    for name, seconds, remark in rows:
        print(f"| {name:<31} | {seconds:7.1f} s | {100 * seconds / wall:5.1f} % | {remark}")


if __name__ == "__main__":
    main()
