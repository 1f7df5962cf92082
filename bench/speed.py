"""Caravan against PyTorch, the machine's ceilings and oneDNN: runs, figures, text."""

import dataclasses
import statistics

import runs
from report import mebibytes, table

NEAR_ONEDNN = 0.85  # of oneDNN's speed alone: such products count as good
FAR_FROM_FASTEST = 0.9  # slower ways to run PyTorch are tried once
# Rows of the table of where the time goes. The first three multiply; the others move memory.
FAMILY_OF = {
    "matmul": "matmul",
    "linear_cross_entropy": "loss",
    "linear_cross_entropy_grad": "loss",
    "attention": "attention",
    "attention_grad": "attention",
    "rope": "rope",
    "adamw": "update",
    "squared_norm": "update",
    "clip_scale": "update",
}
MULTIPLYING = ("matmul", "loss", "attention")


@dataclasses.dataclass(frozen=True)
class Case:
    title: str
    short: str
    size: runs.Size
    caravan_steps: runs.Steps
    peer_steps: runs.Steps
    must: float  # tokens/s over PyTorch
    aim: float


def cases(is_quick):
    def steps(warmup, timed):
        return runs.Steps(1, 1) if is_quick else runs.Steps(warmup, timed)

    def larger(sequence_len):
        return Case(
            f"123.6 M parameters, batch 4 x {sequence_len}",
            f"123.6 M, 4 x {sequence_len}",
            runs.Size(runs.LARGER, 4, sequence_len),
            steps(1, 3),
            steps(1, 3),
            1.2,
            1.4,
        )

    quickstart = Case(
        "Quickstart model, batch 8 x 256",
        "quickstart, 8 x 256",
        runs.Size(runs.QUICKSTART, 8, 256),
        steps(2, 9),
        steps(3, 9),
        1.3,
        1.6,
    )
    return [quickstart, larger(256), larger(512)]


def median_of(results, key):
    return statistics.median(one[key] for one in results)


class Measured:
    """All runs of one case."""

    def __init__(self, case, threads):
        self.case, self.threads = case, threads
        self.caravan, self.ranks, self.onednn = [], [], []
        self.peers = {}  # by way, in the order of runs.PEER_WAYS

    def run_round(self, python):
        size, steps = self.case.size, self.case.caravan_steps
        ways = self.promising_ways()
        self.caravan.append(runs.run_caravan(size, self.threads, steps))
        for way in ways:
            peer = runs.run_peer(python, size, self.threads, self.case.peer_steps, way)
            self.peers.setdefault(way, []).append(peer)
        self.caravan.append(runs.run_caravan(size, self.threads, steps))
        if self.threads % 2 == 0:
            self.ranks.append(runs.run_caravan(size, self.threads // 2, steps, ranks=2))
        products = {tuple(p) for kind in self.caravan[0]["kinds"] for p in kind["products"]}
        self.onednn.append(runs.run_onednn(sorted(products), self.threads))

    def promising_ways(self):
        """All ways to run PyTorch at first, then those that are not far from the fastest."""
        if not self.peers:
            return list(runs.PEER_WAYS)
        fastest = median_of(self.peer(), "tok_s")
        return [way for way, results in self.peers.items()
                if median_of(results, "tok_s") >= FAR_FROM_FASTEST * fastest]

    def best_way(self):
        return max(self.peers, key=lambda way: median_of(self.peers[way], "tok_s"))

    def peer(self):
        return self.peers[self.best_way()]

    def over_peer(self, key):
        return median_of(self.caravan, key) / median_of(self.peer(), key)

    def step_ms(self):
        return median_of(self.caravan, "step_ms")

    def kinds(self):
        """Of nodes: as bench_step prints them, with the median milliseconds of all runs."""
        for i, kind in enumerate(self.caravan[0]["kinds"]):
            milliseconds = statistics.median(one["kinds"][i]["ms"] for one in self.caravan)
            yield {**kind, "ms": milliseconds}

    def onednn_gflops(self, product):
        return max(one["gflops"][tuple(product)] for one in self.onednn)

    def over_onednn(self, kind):
        """Speed of the node over that of its products in oneDNN alone; None without products."""
        if not kind["products"]:
            return None
        alone_ms = sum(2e-6 * m * n * k / self.onednn_gflops((m, n, k, *transposes))
                       for m, n, k, *transposes in kind["products"])
        return kind["calls"] * alone_ms / kind["ms"]

    def near_onednn_share(self):
        good = [k["ms"] for k in self.kinds() if (self.over_onednn(k) or 0) >= NEAR_ONEDNN]
        return sum(good) / self.step_ms()

    def update_gb_s(self):
        nodes = [k for k in self.kinds() if FAMILY_OF.get(k["op"]) == "update"]
        return 1e-6 * sum(k["calls"] * k["bytes"] for k in nodes) / sum(k["ms"] for k in nodes)

    def ranks_over_threads(self):
        return median_of(self.ranks, "tok_s") / median_of(self.caravan, "tok_s")

    def beyond_plan_bytes(self):
        return median_of(self.caravan, "peak_rss_bytes") - self.caravan[0]["arena_bytes"]


def measure(cases_to_run, python, threads, rounds):
    """The ceilings of each round, and Measured of each case."""
    ceilings, all_measured = [], [Measured(case, threads) for case in cases_to_run]
    for _ in range(rounds):
        ceilings.append(runs.run_ceilings(threads))
        for one in all_measured:
            one.run_round(python)
    return ceilings, all_measured


def ceiling(ceilings, key):
    return max(one[key] for one in ceilings)


# --- text ----------------------------------------------------------------------------------------


def against_peer(measured):
    caravan, peer = measured.caravan, measured.peer()

    def row(label, key, show):
        ours, theirs = median_of(caravan, key), median_of(peer, key)
        return [label, show(ours), show(theirs), f"{ours / theirs:.2f}"]

    rows = [
        row("tokens/s", "tok_s", "{:,.0f}".format),
        row("step, ms", "step_ms", "{:,.0f}".format),
        row("peak resident set, MiB", "peak_rss_bytes", mebibytes),
        ["planned, arena, MiB", mebibytes(caravan[0]["arena_bytes"]), "not known", ""],
    ]
    return table(["", "Caravan", f"PyTorch {peer[0]['torch']}", "ratio"], rows)


def peer_ways(measured):
    rows = []
    for way, results in measured.peers.items():
        is_best = way == measured.best_way()
        rows.append([way + (", in the table above" if is_best else ""), str(len(results)),
                     f"{median_of(results, 'tok_s'):,.0f}",
                     mebibytes(median_of(results, "peak_rss_bytes"))])
    return table(["PyTorch", "runs", "tokens/s", "peak resident set, MiB"], rows)


def where_the_time_goes(measured, ceilings):
    families = {}
    for kind in measured.kinds():
        family = FAMILY_OF.get(kind["op"], kind["family"])
        total = families.setdefault(family, {"ms": 0, "flops": 0, "bytes": 0})
        total["ms"] += kind["ms"]
        for what in ("flops", "bytes"):
            total[what] += kind["calls"] * kind[what]
    gflops, copy_gb_s = ceiling(ceilings, "gflops"), ceiling(ceilings, "copy_gb_s")
    step_ms = measured.step_ms()
    rows = []
    for name in sorted(families, key=lambda name: -families[name]["ms"]):
        total = families[name]
        if total["ms"] < 0.0005 * step_ms:
            continue
        multiplies = name in MULTIPLYING
        rate = 1e-6 * total["flops" if multiplies else "bytes"] / total["ms"]
        of_ceiling = rate / (gflops if multiplies else copy_gb_s)
        unit = "GF/s" if multiplies else "GB/s"
        rows.append([name, f"{total['ms']:,.1f}", f"{total['ms'] / step_ms:.1%}",
                     f"{rate:,.1f} {unit}", f"{of_ceiling:.0%}"])
    rest = step_ms - sum(float(row[1].replace(",", "")) for row in rows)
    rows.append(["all else", f"{rest:,.1f}", f"{rest / step_ms:.1%}", "", ""])
    return table(["of the step", "ms", "share", "rate", "of the ceiling"], rows)


def against_onednn(measured):
    rows = []
    for kind in sorted(measured.kinds(), key=lambda kind: -kind["ms"]):
        ratio = measured.over_onednn(kind)
        if ratio is None:
            continue
        products = " + ".join(
            f"{m} x {n} x {k}{' aT' if a else ''}{' bT' if b else ''}"
            for m, n, k, a, b in kind["products"]
        )
        gflops = 1e-6 * kind["calls"] * kind["flops"] / kind["ms"]
        rows.append([kind["op"], products, str(kind["calls"]), f"{kind['ms']:,.1f}",
                     f"{gflops:,.0f}", f"{ratio:.2f}"])
    head = ["node", "m x n x k", "a step", "ms", "GF/s", "over oneDNN alone"]
    return table(head, rows, left=2)


def spread(results):
    speeds = sorted(one["tok_s"] for one in results)
    return f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}"


def case_title(measured):
    return f"## {measured.case.title}, 1 process x {measured.threads} threads"


def case_section(measured, ceilings, machine):
    return f"""{against_peer(measured)}

Medians of {len(measured.caravan)} runs of Caravan and {len(measured.peer())} of PyTorch's fastest way, in turn; fp32, random tokens, no
data loading, denormals flushed on both sides. PyTorch: SDPA, fused AdamW, foreach clipping, heap
kept; all ways were tried once, those within {1 - FAR_FROM_FASTEST:.0%} of the fastest in every round.
Spread in tokens/s: Caravan {spread(measured.caravan)}, PyTorch {spread(measured.peer())}.

{peer_ways(measured)}

{where_the_time_goes(measured, ceilings)}

Of the same steps. {', '.join(MULTIPLYING[:-1])} and {MULTIPLYING[-1]} against multiply-adds, the rest against copying; flops
and bytes as the ops' rules count them (each tensor read or written once), so what stays in a
cache can be faster than copying.

{against_onednn(measured)}

Caravan's are medians in the step; oneDNN's alone and warm, the best run of the best of sgemm and the
matmul primitive with weights as they are or laid out beforehand. A node of the loss is set against
its products alone, softmax and all.

{machine}
"""
