"""Text to tokens: MB/s of one thread, beside Hugging Face's tokenizers, with one tokenizer.json.

The text is the sources of Debian's Python manual (the quickstart installs or unpacks them); the
vocabulary, of 40,000 tokens with Llama 3's pre-tokeniser, is trained on it by `tokenizers`. Both
must give the same number of tokens. Standard library only.
"""

import pathlib
import statistics
import subprocess

import runs
from report import ROOT, table

FOLDER = ROOT / "build/bench/tokenizer"
VOCAB_SIZE = 40000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}


def manual_text():
    for root in (pathlib.Path("/"), ROOT / "runs/python3-doc"):
        for folder in sorted(root.glob("usr/share/doc/python3*/html/_sources")):
            files = sorted(path for path in folder.resolve().rglob("*.txt") if path.is_file())
            if files:
                return "".join(path.read_text() for path in files)
    raise SystemExit("no Python manual: install python3-doc, or run launch/quickstart.sh once")


def prepare(python):
    """Makes text and vocabulary once; the mark is the file that is written last."""
    text = FOLDER / "text.txt"
    if not (FOLDER / "tokenizer.json").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        text.write_text(manual_text())
        subprocess.run([python, "bench/peer_tokenizers.py", "train", str(text), str(FOLDER),
                        str(VOCAB_SIZE)], check=True, cwd=ROOT)
    return text


def measure(python, rounds, is_quick):
    text = prepare(python)
    passes = 1 if is_quick else 3
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(runs.run_json(["build/bench_tokenizer", str(FOLDER), str(text),
                                   f"rounds={passes}"], "Caravan, tokens", ONE_THREAD))
        theirs.append(runs.run_json([python, "bench/peer_tokenizers.py", "time", str(FOLDER),
                                     str(text), str(passes)], "tokenizers", ONE_THREAD))
    if ours[0]["tokens"] != theirs[0]["tokens"]:
        raise SystemExit(f"not the same tokens: {ours[0]['tokens']}, {theirs[0]['tokens']}")
    return ours, theirs


def section(results, machine):
    ours, theirs = results
    rows = []
    for name, measured in (("Caravan", ours), (f"tokenizers {theirs[0]['version']}", theirs)):
        speeds = [speed for result in measured for speed in result["MB_per_s"]]
        rows.append([name, f"{statistics.median(speeds):.1f}",
                     f"{min(speeds):.1f} to {max(speeds):.1f}"])
    return f"""English text, {ours[0]['bytes'] / 1e6:.1f} MB in pieces of 64 KiB, {ours[0]['tokens']:,} tokens of
{theirs[0]['vocab_size']:,}, Llama 3's pre-tokeniser, one thread; runs alternate.

{table(["", "MB/s, median", "of all passes"], rows)}

{machine}
"""
