"""What all benchmarks write alike: Markdown tables, the line about the machine, sections of
RESULTS.md. Standard library only."""

import datetime
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def table(head, rows, left=1):
    """Markdown; the first `left` columns are text, the others numbers."""
    marks = ["---"] * left + ["--:"] * (len(head) - left)
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(marks) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def mebibytes(num_bytes):
    return f"{num_bytes / 2**20:,.0f}"


def output_of(*command):
    return subprocess.run(command, text=True, capture_output=True).stdout.strip()


def git(*words):
    return output_of("git", "-C", str(ROOT), *words)


def machine_line(load):
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    name = cpu.group(1) if cpu else platform.machine()
    cores = len(os.sched_getaffinity(0))
    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    # Earlier results are written by earlier parts of the same run.
    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/RESULTS.md",
                  ":!bench/scaling.svg")
    changed = " with local changes" if changes else ""
    return (
        f"{name}, {cores} cores, load {load:.2f} at the start; {datetime.date.today()}; "
        f"commit {commit}{changed}; {platform.platform()}."
    )


def warn_if_busy(load):
    if load > 0.25 * len(os.sched_getaffinity(0)):
        print(f"The load is {load:.2f}: other programs distort these numbers.", file=sys.stderr)


def with_section(text, title, content, is_first):
    """The text with the section of that title replaced, or added: before all others or at the
    end."""
    found = re.search(rf"^{re.escape(title)}$", text, re.MULTILINE)
    if not found:
        parts = text.rstrip().split("\n## ", 1) if is_first else [text.rstrip()]
        rest = f"\n## {parts[1]}\n" if len(parts) > 1 else ""
        return f"{parts[0].rstrip()}\n\n{content}{rest}"
    end = text.find("\n## ", found.end())
    rest = text[end + 1 :] if end >= 0 else ""
    return text[: found.start()] + content + ("\n" + rest if rest else "")


def write_section(path, title, content, is_first=False):
    """Puts "title, empty line, content" into the file at `path` and onto the screen."""
    section = f"{title}\n\n{content.strip()}\n"
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.exists() else "# Measured\n\nMade by `bench/run.sh`.\n"
    path.write_text(with_section(text, title, section, is_first))
    print(section)
