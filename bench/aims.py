"""The table of all figures that have an aim, and the one of what one arena saves."""

import runs
import speed
from report import mebibytes, table

POOL_RANKS = (1, 2, 4, 8)
POOL_SIZES = {
    "quickstart, 4 x 256": runs.Size(runs.QUICKSTART, 4, 256),
    "quickstart, 8 x 256": runs.Size(runs.QUICKSTART, 8, 256),
    "123.6 M, 4 x 256": runs.Size(runs.LARGER, 4, 256),
    "123.6 M, 4 x 512": runs.Size(runs.LARGER, 4, 512),
}
MIB = 2**20


def plan_pools(threads):
    """By name and dp."""
    return {
        (name, dp): runs.run_pools(size, threads, dp)
        for name, size in POOL_SIZES.items()
        for dp in POOL_RANKS
    }


def saved(pools):
    return 1 - pools["arena_bytes"] / sum(pools["pools"].values())


def pools_section(all_pools, machine):
    names = list(next(iter(all_pools.values()))["pools"])
    rows = []
    for (name, dp), pools in all_pools.items():
        values = [pools["pools"][pool] for pool in names]
        rows.append([name, str(dp), *map(mebibytes, values), mebibytes(sum(values)),
                     mebibytes(pools["arena_bytes"]), f"-{saved(pools):.1%}"])
    head = ["model, batch of a rank", "dp", *names, "all pools", "one arena", "saved"]
    return f"""{table(head, rows)}

MiB of a rank, planned, ZeRO 1. The pools are of the same plan, each as large as the most that is
live in it at a time and without a gap, over all programs of a run. Gradients are those of weights
and of activations; scratch memory of kernels is in activations. Communication has the buckets of
reduced gradients; they are reduced where they lie, so that nothing else is needed.

{machine}
"""


def aims_table(ceilings, all_measured, all_pools):
    """None where a part was not measured."""
    def row(label, must, aim, cell):
        return [label, must, aim, *(cell(measured) for measured in all_measured)]

    def over_peer(measured):
        case = measured.case
        return f"{measured.over_peer('tok_s'):.2f} (must {case.must}, aim {case.aim})"

    def beyond_plan(measured):
        arena_bytes = measured.caravan[0]["arena_bytes"]
        beyond = measured.beyond_plan_bytes()
        musts = {"must": 0.05 * arena_bytes + 150e6, "aim": 0.02 * arena_bytes + 100e6}
        allowed = ", ".join(f"{name} {bytes_ / MIB:,.0f}" for name, bytes_ in musts.items())
        return f"+{beyond / MIB:,.0f} MiB ({allowed})"

    def against_pools(measured):
        return f"-{saved(all_pools[measured.case.short, 8]):.1%}"

    def of_copy(measured):
        return f"{measured.update_gb_s() / speed.ceiling(ceilings, 'copy_gb_s'):.0%}"

    rows = [
        row("tokens/s over PyTorch", "", "", over_peer),
        row(f"share of the step in matmuls at ≥ {speed.NEAR_ONEDNN:.0%} of oneDNN alone", "75 %",
            "85 %", lambda measured: f"{measured.near_onednn_share():.1%}"),
        row("AdamW and clipping, bytes moved over copy bandwidth", "80 %", "95 %", of_copy),
        row("peak resident set over PyTorch's", "0.70", "0.60",
            lambda measured: f"{measured.over_peer('peak_rss_bytes'):.2f}"),
        row("resident set over the plan", "+5 % + 150 MB", "+2 % + 100 MB", beyond_plan),
    ]
    if all_measured[0].ranks:
        half = all_measured[0].threads // 2
        label = f"2 ranks x {half} over 1 x {2 * half} threads, tokens/s"
        rows.insert(3, row(label, "0.95", "1.0", lambda m: f"{m.ranks_over_threads():.3f}"))
    if all_pools:
        rows.append(row("one arena against separate pools, dp 8, ZeRO 1", "-25 %", "-35 %",
                        against_pools))
    return table(["", "must", "aim", *(m.case.short for m in all_measured)], rows)


def aims_section(ceilings, all_measured, all_pools, machine):
    def best(key):
        return speed.ceiling(ceilings, key)

    one = ceilings[0]
    return f"""{aims_table(ceilings, all_measured, all_pools)}

Matmuls are all nodes whose time oneDNN can be set against: matmul and the loss, not attention.
Ceilings: {one['instructions']} multiply-adds {best('gflops'):,.0f} GF/s ({best('gflops_1'):,.0f} on one thread), copying {best('copy_gb_s'):.1f} GB/s
({best('copy_gb_s_1'):.1f}), read and written bytes. PyTorch {all_measured[0].peer()[0]['torch']}, oneDNN {all_measured[0].onednn[0]['version']}.

{machine}
"""
