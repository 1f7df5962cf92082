"""Takes every figure of bench/RESULTS.md that is about speed and memory. Called by run.sh.

What is compared alternates, so that a slow minute of the machine hits all sides. Needs only the
standard library; `--python` is PyTorch's interpreter.
"""

import argparse
import os
import pathlib
import sys

import aims
import moe
import scaling
import speed
import tokenization
from report import ROOT, machine_line, output_of, warn_if_busy, write_section

PARTS = ("speed", "moe", "pools", "scaling", "tokenizer")


def positive(text):
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench/run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable,
                        help="an interpreter that has torch; run.sh gives it")
    parser.add_argument("--check", action="store_true", help="only look at the arguments")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=3, help="runs of each side")
    parser.add_argument("--quick", action="store_true",
                        help="one round of one step, fewer sizes, written to build/bench: "
                        "shows that all works, measures nothing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cases", type=int, nargs="+", choices=(0, 1, 2), default=[0, 1, 2],
                        help="of speed: 0 quickstart, 1 and 2 the model of 123.6 M parameters")
    parser.add_argument("--results", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    folder = ROOT / ("build/bench" if arguments.quick else "bench")
    arguments.results = arguments.results or folder / "RESULTS.md"
    return arguments


def machine_of(arguments, load):
    compiler = output_of("g++", "-dumpfullversion")
    quick = " One step a run: this measures nothing." if arguments.quick else ""
    return f"{machine_line(load)} GCC {compiler}.{quick}"


def main():
    arguments = parse_arguments()
    if arguments.check:
        return
    load = os.getloadavg()[0]
    warn_if_busy(load)
    machine = machine_of(arguments, load)
    pools = aims.plan_pools(arguments.threads) if "pools" in arguments.parts else {}
    if "speed" in arguments.parts:
        chosen = [speed.cases(arguments.quick)[i] for i in arguments.cases]
        ceilings, all_measured = speed.measure(
            chosen, arguments.python, arguments.threads, arguments.rounds
        )
        write_section(arguments.results, "## Aims",
                      aims.aims_section(ceilings, all_measured, pools, machine), is_first=True)
        for measured in all_measured:
            write_section(arguments.results, speed.case_title(measured),
                          speed.case_section(measured, ceilings, machine))
    if "moe" in arguments.parts:
        results = moe.measure(arguments.python, arguments.threads, arguments.rounds,
                              arguments.quick)
        write_section(arguments.results, "## Mixture of experts", moe.section(results, machine))
    if pools:
        write_section(arguments.results, "## One arena against separate pools",
                      aims.pools_section(pools, machine))
    if "scaling" in arguments.parts:
        results = scaling.measure(arguments.threads, arguments.quick)
        svg = arguments.results.parent / "scaling.svg"
        svg.parent.mkdir(parents=True, exist_ok=True)
        svg.write_text(scaling.picture(results, arguments.threads))
        write_section(arguments.results, "## Time and memory over size",
                      scaling.section(results, arguments.threads, machine))
    if "tokenizer" in arguments.parts:
        results = tokenization.measure(arguments.python, arguments.rounds, arguments.quick)
        write_section(arguments.results, "## Text to tokens",
                      tokenization.section(results, machine))


if __name__ == "__main__":
    main()
