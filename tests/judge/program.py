"""Runs caravan, alone or under mpirun, and reads what it leaves."""

import json
import os
import pathlib
import subprocess

ENVIRONMENT = os.environ | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
}


class Failed(Exception):
    """A command did not end with exit code 0."""


class Caravan:
    def __init__(self, program):
        self.program = str(program)

    def __call__(self, *arguments, ranks=0):
        """What it printed."""
        command = [self.program, *map(str, arguments)]
        if ranks:
            command = ["mpirun", "-n", str(ranks), *command]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def first_loss(self, config, run, overrides, ranks=0):
        """Of step 1 of a run that ends there, as it is written."""
        self("train", config, f"output_dir={run}", "train.max_steps=1", *overrides, ranks=ranks)
        for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record.get("step") == 1 and "loss" in record and "event" not in record:
                return record["loss"]
        raise Failed(f"{run}: no loss of step 1")


def content(path):
    """Bytes of a file. Of parity.json all but the logits: a first export that rounds is compared
    with the checkpoint before rounding, the next one with rounded weights."""
    if path.name != "parity.json":
        return path.read_bytes()
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "logits"}


def differing_files(a, b):
    """Names of files that are not the same, byte by byte, in two folders."""
    a, b = pathlib.Path(a), pathlib.Path(b)
    names = lambda folder: {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    return sorted(names(a) ^ names(b)) + sorted(
        name for name in names(a) & names(b) if content(a / name) != content(b / name)
    )
