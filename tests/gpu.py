"""Runs the tests and measurements of a GPU one after another, each for a limited time. See gpu.sh.

Standard library only. A measurement is a program that prints one line of JSON; a test program
writes googletest's report. Nothing that did not run counts as passed.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("tests", "sanitizer", "kernels", "train", "peer")
NO_DEVICE = 77
H200_TFLOPS = 989  # of bf16, dense, by its data sheet
CONFIGS = sorted((ROOT / "bench/gpu").glob("*.yaml"))
# Suites that only a GPU makes different; googletest's filters.
TEST_PROGRAMS = {"runtime_cuda_test": "*", "e2e_test": "*Cuda*"}
SANITIZER_SHARDS = 4  # so that what a limit cuts off is a part
# Sizes for --rehearse, which shows on a CPU that all of this works and measures nothing.
TINY = {"model.vocab_size": 512, "model.hidden_size": 64, "model.intermediate_size": 128,
        "model.num_hidden_layers": 2, "model.num_attention_heads": 4,
        "model.num_key_value_heads": 2, "data.sequence_len": 64, "train.micro_batch_size": 2,
        "train.global_batch_size": 2}


@dataclasses.dataclass
class Task:
    name: str
    part: str
    command: list
    limit: int  # seconds
    read: object  # of what it printed: (result, figure, JSON)
    environment: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    name: str
    part: str
    result: str  # passed, failed, skipped
    seconds: float = 0.0
    figure: str = ""
    details: object = None


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/gpu.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu-results"))
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ",".join(PARTS))
    parser.add_argument("--minutes", type=float, default=60, help="what begins later is skipped")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--list", action="store_true", help="only name what would run")
    parser.add_argument("--rehearse", action="store_true",
                        help="tiny sizes on the CPU: shows that it works, measures nothing")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts.split(",")
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"no part '{part}': there are {', '.join(PARTS)}")
    return arguments


def program(name):
    """Of a bundle or of a build folder; None when it was not built."""
    for folder in ("bin", "tests", "build"):
        if (ROOT / folder / name).is_file():
            return str(ROOT / folder / name)
    return None


# --- the machine ---------------------------------------------------------------------------------


def device_problem():
    """Why there is no GPU to use; "" when there is one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "the NVIDIA driver does not start"
    return "" if count.value > 0 else "the NVIDIA driver has no device"


def library_folders():
    """Where CUDA's libraries may be: the toolkit, else what came with PyTorch."""
    folders = [pathlib.Path("/usr/local/cuda/lib64")]
    packages = pathlib.Path(sysconfig.get_path("purelib")) / "nvidia"
    folders += sorted(packages.glob("*/lib"))
    return [str(folder) for folder in folders if folder.is_dir()]


def environment_of(task):
    known = os.environ.get("LD_LIBRARY_PATH")
    folders = ([known] if known else []) + library_folders()
    ours = {"LD_LIBRARY_PATH": ":".join(folders)} if task.part != "peer" else {}
    if (ROOT / "bin").is_dir():
        ours["CARAVAN_TEST_FOLDER"] = str(ROOT)
        ours["PATH"] = f"{ROOT / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, **ours, **task.environment}


# --- what there is to run ------------------------------------------------------------------------


def read_json(text):
    return json.loads(text.strip().splitlines()[-1])


def read_report(path):
    """Of googletest, from its file."""
    def read(_):
        report = json.loads(path.read_text())
        cases = [case for suite in report["testsuites"] for case in suite["testsuite"]]
        num_skipped = sum(case["result"] != "COMPLETED" for case in cases)
        num_failed = report["failures"] + report["errors"]
        num_passed = len(cases) - num_skipped - num_failed
        result = "failed" if num_failed else "passed" if num_passed else "skipped"
        return result, f"{num_passed} passed, {num_failed} failed, {num_skipped} skipped", report
    return read


def test_tasks(out):
    for name, tests in TEST_PROGRAMS.items():
        report = out / f"{name}.json"
        command = [program(name), f"--gtest_filter={tests}", f"--gtest_output=json:{report}"]
        yield Task(name, "tests", command, 900, read_report(report))


def sanitizer_tasks(out):
    """Allocations that are meant to fail are errors to memcheck, and are left out."""
    for tool in ("memcheck", "racecheck"):
        for shard in range(SANITIZER_SHARDS):
            report = out / f"{tool}-{shard}.json"
            command = [shutil.which("compute-sanitizer"), "--tool", tool, "--error-exitcode", "9",
                       program("runtime_cuda_test"), "--gtest_filter=-*MoreThanTheDeviceHas",
                       f"--gtest_output=json:{report}"]
            yield Task(f"{tool} {shard + 1} of {SANITIZER_SHARDS}", "sanitizer", command, 600,
                       read_report(report),
                       {"GTEST_TOTAL_SHARDS": str(SANITIZER_SHARDS),
                        "GTEST_SHARD_INDEX": str(shard)})


def read_ceilings(text):
    result = read_json(text)
    figure = f"{result['bf16_tflops']:.0f} TFLOP/s bf16, copy {result['copy_gb_s']:,.0f} GB/s"
    return "passed", figure, result


def kernel_tasks(out):
    yield Task("ceilings", "kernels", [program("bench_gpu_ceilings")], 120, read_ceilings)
    yield Task("bench_cuda_matmul", "kernels", [program("bench_cuda_matmul")], 300,
               lambda text: ("passed", "see gpu.json", json.loads(text)))
    path = out / "bench_cuda_kernels.json"
    yield Task("bench_cuda_kernels", "kernels",
               [program("bench_cuda_kernels"), "--json", str(path)], 300,
               lambda _: ("passed", "see gpu.json", json.loads(path.read_text())))


def words(overrides):
    return [f"{key}={value}" for key, value in overrides.items()]


# Of each model: by default, and with one thing changed.
VARIANTS = {"": {}, ", no CUDA graph": {"runtime.cuda_graph": "false"},
            ", deterministic": {"runtime.deterministic": "true"}}


def train_tasks(is_rehearsal):
    """Profiles come with the first variant only: they take a second run."""
    steps = ["warmup=1", "steps=2"] if is_rehearsal else ["warmup=3", "steps=10"]
    tiny = {**TINY, "runtime.device": "cpu", "runtime.dtype": "float32"} if is_rehearsal else {}
    for config in CONFIGS:
        keys = config_keys(config, is_rehearsal)
        for variant, overrides in VARIANTS.items():
            command = [program("bench_step"), *steps, f"profile={int(not overrides)}", str(config),
                       *words({**tiny, **overrides})]
            yield Task(f"{config.stem}{variant}", "train", command, 300,
                       lambda text, keys=keys: read_step(text, keys))


def peer_tasks(python, is_rehearsal):
    """bf16 throughout counts as the peer only where the other, fairer way does not fit."""
    for config in CONFIGS:
        keys = config_keys(config, is_rehearsal)
        command = [python, str(ROOT / "bench/gpu/peer.py"), "--model", json.dumps(model_of(keys)),
                   "--batch_size", keys["train.micro_batch_size"],
                   "--sequence_len", keys["data.sequence_len"]]
        command += ["--device", "cpu", "--steps", "1", "--warmup", "1"] if is_rehearsal else []
        ways = [("eager", "autocast")] if is_rehearsal else [
            ("compile", "autocast"), ("graphs", "autocast"), ("compile", "bf16")]
        for mode, precision in ways:
            yield Task(f"PyTorch, {config.stem}, {mode}, {precision}", "peer",
                       [*command, "--mode", mode, "--precision", precision], 300,
                       lambda text, keys=keys: read_peer(text, keys))


def all_tasks(arguments):
    out, is_rehearsal = arguments.out.resolve(), arguments.rehearse
    of_device = [] if is_rehearsal else [*sanitizer_tasks(out), *kernel_tasks(out)]
    tasks = [*test_tasks(out), *of_device, *train_tasks(is_rehearsal),
             *peer_tasks(arguments.python, is_rehearsal)]
    return [task for task in tasks if task.part in arguments.parts]


# --- training steps ------------------------------------------------------------------------------


def config_keys(path, is_rehearsal):
    """section.key: text. Only for the files of bench/gpu, which are of a simple form."""
    keys, section = {}, ""
    for line in path.read_text().splitlines():
        if match := re.match(r"(\w+):\s*(?:#.*)?$", line):
            section = match[1]
        elif match := re.match(r"  (\w+): *([^#]+?) *(?:#.*)?$", line):
            keys[f"{section}.{match[1]}"] = match[2].replace("_", "")
        elif match := re.match(r"(\w+): *{(.*)}", line):
            for pair in match[2].split(","):
                key, value = pair.split(":")
                keys[f"{match[1]}.{key.strip()}"] = value.strip().replace("_", "")
    return {**keys, **({key: str(value) for key, value in TINY.items()} if is_rehearsal else {})}


def model_of(keys):
    """The model as peer.py takes it."""
    model = {key.removeprefix("model."): value for key, value in keys.items()
             if key.startswith("model.")}
    for key in ("family", "max_position_embeddings", "num_experts_per_tok",
                "interleave_moe_layer_step"):
        model.pop(key, None)
    model = {key: json.loads(value) for key, value in model.items()}
    model.setdefault("head_dim", model["hidden_size"] // model["num_attention_heads"])
    model.setdefault("tie_word_embeddings", False)
    return model


def flops_per_token(model, sequence_len):
    """Of a step: 6 for each weight that the token is multiplied with, and causal attention."""
    hidden, layers = model["hidden_size"], model["num_hidden_layers"]
    queries = model["num_attention_heads"] * model["head_dim"]
    keys = model["num_key_value_heads"] * model["head_dim"]
    mlps = 2 if model.get("num_local_experts") else 1  # one expert, and the shared one
    weights = layers * (hidden * (2 * queries + 2 * keys) +
                        mlps * 3 * hidden * model["intermediate_size"] +
                        hidden * model.get("num_local_experts", 0))
    return 6 * (weights + model["vocab_size"] * hidden) + 6 * layers * sequence_len * queries


def with_tflops(result, keys):
    flops = flops_per_token(model_of(keys), int(keys["data.sequence_len"]))
    result["model_tflops"] = 1e-12 * flops * result["tok_s"]
    return f"{result['tok_s']:,.0f} tok/s, MFU {result['model_tflops'] / H200_TFLOPS:.1%}"


def read_step(text, keys):
    result = read_json(text)
    figure = with_tflops(result, keys)
    if "device_bytes" in result:
        figure += (f", {result['device_bytes'] / 2**30:.1f} GiB held, "
                   f"{result['arena_bytes'] / 2**30:.1f} planned")
    if result["kinds"]:
        families = {}
        for kind in result["kinds"]:
            families[kind["family"]] = families.get(kind["family"], 0) + kind["ms"]
        result["family_ms"] = families
        result["gaps_ms"] = result["step_ms"] - sum(families.values())
        figure += f", {result['gaps_ms']:.2f} of {result['step_ms']:.2f} ms in no kernel"
    return "passed", figure, result


def read_peer(text, keys):
    result = read_json(text)
    if "error" in result:
        return "skipped", result["error"], result
    return "passed", with_tflops(result, keys), result


# --- running -------------------------------------------------------------------------------------


def skipped(task, why):
    return Outcome(task.name, task.part, "skipped", figure=why)


def missing(task):
    """What the task needs and is not here; "" when nothing is."""
    if task.command[0] is None:
        return "compute-sanitizer is not here" if task.part == "sanitizer" else "not built"
    if None in task.command:
        return "runtime_cuda_test is not built"
    if task.part == "peer" and subprocess.run([task.command[0], "-c", "import torch"],
                                              capture_output=True).returncode != 0:
        return f"{task.command[0]} has no torch"
    return ""


def run(task, deadline, out):
    if why := missing(task):
        return skipped(task, why)
    limit = min(task.limit, deadline - time.monotonic())
    if limit < 1:
        return skipped(task, "no time left")
    start = time.monotonic()
    log = out / (re.sub(r"\W+", "-", task.name) + ".log")
    status, output = start_and_wait(task, limit, log)
    seconds = time.monotonic() - start
    result, figure, details = "failed", f"exit code {status}, see {log.name}", None
    if status is None:
        figure = f"not done within {limit:.0f} s"
    elif status == 0 or task.part == "tests":
        try:
            result, figure, details = task.read(output)
        except (OSError, ValueError, KeyError, IndexError):
            figure = f"no results, see {log.name}"
    if status != 0 and result == "passed":
        result, figure = "failed", f"{figure}, but exit code {status}"
    return Outcome(task.name, task.part, result, seconds, figure, details)


def start_and_wait(task, limit, log):
    """Exit status (None: it took too long, and was ended with all that it had started), output."""
    with log.open("w") as errors:
        errors.write(" ".join(task.command) + "\n")
        errors.flush()
        process = subprocess.Popen(task.command, env=environment_of(task), text=True, cwd=ROOT,
                                   stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        try:
            output = process.communicate(timeout=limit)[0]
            errors.write(output)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, ""


def compare(outcomes):
    """Adds to figures what other tasks measured: the ceiling of this machine, and the peer."""
    details = {one.name: one.details for one in outcomes if one.result == "passed"}
    ceiling = (details.get("ceilings") or {}).get("bf16_tflops")
    for one in outcomes:
        if one.name not in details or "model_tflops" not in (one.details or {}):
            continue
        if ceiling:
            one.details["of_measured_product"] = one.details["model_tflops"] / ceiling
            one.figure += f", {one.details['of_measured_product']:.1%} of the product"
        if one.part == "train" and (peer := best_peer(details, one.name)):
            one.details["over_peer"] = one.details["tok_s"] / peer["tok_s"]
            one.figure += f", {one.details['over_peer']:.2f} x PyTorch ({peer['precision']})"


def best_peer(details, name):
    model = name.split(",")[0]
    peers = [one for key, one in details.items() if key.startswith(f"PyTorch, {model},")]
    fair = [one for one in peers if one["precision"] == "autocast"]
    return max(fair or peers, key=lambda one: one["tok_s"], default=None)


def print_table(outcomes):
    if not outcomes:
        print("nothing to run: these parts have no tasks here")
        return
    width = max(len(outcome.name) for outcome in outcomes)
    print(f"\n{'':{width}}  result   seconds  figure")
    for one in outcomes:
        print(f"{one.name:{width}}  {one.result:7}  {one.seconds:7.1f}  {one.figure}")


def write_results(outcomes, path, is_rehearsal):
    content = {"rehearsal": is_rehearsal, "results": [dataclasses.asdict(one) for one in outcomes]}
    path.write_text(json.dumps(content, indent=1))


def main():
    arguments = parse_arguments()
    tasks = all_tasks(arguments)
    if arguments.list:
        print("\n".join(f"{task.part}: {task.name}" for task in tasks))
        return 0
    problem = "" if arguments.rehearse else device_problem()
    if problem:
        names = "; ".join(task.name for task in tasks)
        print(f"gpu.sh: no GPU: {problem}; skipped: {names}")
        return NO_DEVICE
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    outcomes = []
    for task in tasks:
        print(f"{task.part}: {task.name} ...", flush=True)
        outcomes.append(run(task, deadline, arguments.out))
        write_results(outcomes, arguments.out / "gpu.json", arguments.rehearse)
    compare(outcomes)
    write_results(outcomes, arguments.out / "gpu.json", arguments.rehearse)
    print_table(outcomes)
    if arguments.rehearse:
        print("a rehearsal: these figures measure nothing")
    return 1 if any(outcome.result == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
