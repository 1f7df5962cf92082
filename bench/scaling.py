"""Step time and memory over tokens, layers, width and sequence length: as the maths says?

The expectation is the flops of a step, as the ops' rules count them, at the median speed of a row
of sizes: a straight line over tokens and layers, a parabola over width and sequence length.
"""

import dataclasses
import statistics

import plot
import runs
from report import mebibytes, table


@dataclasses.dataclass(frozen=True)
class Sweep:
    title: str
    x_label: str
    x_tick: int
    sizes: dict  # x: runs.Size


def model(width=256, layers=4, vocab_size=4096):
    heads = width // 64
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": 8 * width // 3 // 64 * 64,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": 64,
        "tie_word_embeddings": True,
    }


def sweeps(is_quick):
    def choose(values):
        return values[:-1:2] if is_quick else values

    return [
        Sweep("Tokens per batch", "tokens (sequences of 256)", 2048,
              {256 * n: runs.Size(model(), n, 256) for n in choose([2, 4, 8, 16, 24, 32])}),
        Sweep("Layers", "layers (width 256, 8 x 256 tokens)", 4,
              {n: runs.Size(model(layers=n), 8, 256) for n in choose([1, 2, 4, 8, 12, 16])}),
        Sweep("Width", "width (4 layers, 4 x 256 tokens)", 192,
              {n: runs.Size(model(width=n), 4, 256) for n in choose([192, 384, 576, 768, 960])}),
        Sweep("Sequence length", "tokens (1 sequence, 2 layers of 128)", 8192,
              {n: runs.Size(model(128, 2, 1024), 1, n)
               for n in choose([1024, 2048, 4096, 8192, 16384, 32768])}),
    ]


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    step_ms: float
    flops: float
    arena_bytes: int
    resident_bytes: int


def measure(threads, is_quick):
    """[(Sweep, [Point])]"""
    results = []
    for sweep in sweeps(is_quick):
        points = []
        for x, size in sweep.sizes.items():
            is_long = size.batch_size * size.sequence_len > 8192
            steps = runs.Steps(1, 1 if is_quick else 2 if is_long else 7)
            one = runs.run_caravan(size, threads, steps)
            flops = sum(kind["calls"] * kind["flops"] for kind in one["kinds"])
            points.append(
                Point(x, one["step_ms"], flops, one["arena_bytes"], one["peak_rss_bytes"])
            )
        results.append((sweep, points))
    return results


def expected_ms(points):
    """By x: the flops there at the median speed of all points."""
    ms_per_flop = statistics.median(point.step_ms / point.flops for point in points)
    return {point.x: ms_per_flop * point.flops for point in points}


def parabola(values, num_points=60):
    """Points of the parabola through the first, a middle and the last of {x: y}. Flops are
    polynomials of the second degree in all that is varied here."""
    xs = list(values)
    nodes = [xs[0], xs[len(xs) // 2], xs[-1]]
    if len(set(nodes)) < 3:
        return list(values.items())

    def at(x):
        total = 0
        for one in nodes:
            factors = [(x - other) / (one - other) for other in nodes if other != one]
            total += values[one] * factors[0] * factors[1]
        return total

    dense = [nodes[0] + (nodes[2] - nodes[0]) * i / num_points for i in range(num_points + 1)]
    return [(x, at(x)) for x in dense]


def panels(results):
    """Two rows: time, memory."""
    times, memories = [], []
    for sweep, points in results:
        scale, unit = (1e-3, "s") if max(p.step_ms for p in points) > 3000 else (1, "ms")
        measured = [(p.x, scale * p.step_ms) for p in points]
        expected = [(x, scale * y) for x, y in parabola(expected_ms(points))]
        planned = [(p.x, p.arena_bytes / 2**20) for p in points]
        resident = [(p.x, p.resident_bytes / 2**20) for p in points]
        times.append(plot.Panel(sweep.title, sweep.x_label, f"step, {unit}", sweep.x_tick, [
            plot.Series("expected from flops", expected, "#9a9a9a", dash="6 4"),
            plot.Series("step, measured", measured, "#1f6f8b", marker="dot", width=0),
        ]))
        memories.append(plot.Panel("", sweep.x_label, "memory, MiB", sweep.x_tick, [
            plot.Series("arena, planned", planned, "#d1495b", marker="ring"),
            plot.Series("resident set, peak", resident, "#2e4057", marker="dot"),
        ]))
    return [times, memories]


def picture(results, threads):
    return plot.draw(
        panels(results),
        "Step time and memory over size",
        f"Llama, fp32, 1 process x {threads} threads; each point is a run of its own",
    )


def section(results, threads, machine):
    rows = []
    for sweep, points in results:
        expected = expected_ms(points)
        for p in points:
            rows.append([sweep.title.lower(), f"{p.x:,}", f"{p.step_ms:,.1f}",
                         f"{p.step_ms / expected[p.x]:.2f}", f"{1e-6 * p.flops / p.step_ms:,.0f}",
                         mebibytes(p.arena_bytes), mebibytes(p.resident_bytes)])
    head = ["", "size", "step, ms", "over expected", "GF/s", "planned, MiB", "resident, MiB"]
    return f"""![step time and memory over size](scaling.svg)

{table(head, rows)}

1 process x {threads} threads, fp32; each size is one run. Expected: flops of a step at the median speed of
its group. Attention's flops grow with the square of the sequence length, others in proportion.

{machine}
"""
