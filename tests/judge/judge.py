"""Judges caravan's import and export by Hugging Face's transformers; tests/judge.sh runs it.

Models: every folder of tests/golden/hf, and three that caravan trains for a few steps. Each is
exported in float32 (also in many files) and bfloat16, and must load without a word, give the logits
and the greedy tokens of the original, come back bit for bit over export, import, export, tokenise
as `caravan data build` did, and be a start for training that has the same first loss on any mesh.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

import h5py
import numpy

import models
from program import Caravan, Failed, differing_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4
EXPORTS = {  # by kind: options of caravan export
    "float32": ["--dtype", "float32"],
    "sharded": ["--dtype", "float32", "--max-shard-size", "4KiB"],
    "bfloat16": ["--dtype", "bfloat16"],
}


def is_of_model(line, folder):
    """Whether transformers says it of the model itself: Llama 4 Scout has equal factors, too."""
    if "high_freq_factor field must be greater than low_freq_factor" not in line:
        return False
    rope = json.loads((pathlib.Path(folder) / "config.json").read_text())["rope_scaling"]
    return rope["high_freq_factor"] == rope["low_freq_factor"]


class Judge:
    def __init__(self, options):
        self.caravan = Caravan(options.program)
        self.pythons = options.python
        self.scratch = pathlib.Path(options.scratch)
        self.num_checks, self.findings = 0, []
        self.largest = {}  # of what was measured, by name
        self.jobs = []
        self.trained = {}  # texts and data by model
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)

    def expect(self, is_right, what):
        self.num_checks += 1
        if not is_right:
            self.findings.append(what)
            print(f"WRONG  {what}", flush=True)

    def expect_near(self, a, b, tolerance, kind, what):
        a, b = numpy.asarray(a), numpy.asarray(b)
        distance = float(abs(a - b).max()) if a.shape == b.shape else float("inf")
        self.largest[kind] = max(self.largest.get(kind, 0.0), distance)
        self.expect(distance <= tolerance, f"{what}: {distance:.3g} apart, {tolerance:g} allowed")

    def attempt(self, what, action):
        """A command that fails is a finding; what follows from it is left out."""
        try:
            return action()
        except Failed as error:
            self.expect(False, f"{what}: {error}")
            return None

    # --- transformers

    def ask(self, python, jobs, results):
        """Runs jobs in a version of transformers: (arrays, problems by name)."""
        (self.scratch / "jobs.json").write_text(json.dumps(jobs))
        worker = pathlib.Path(__file__).with_name("hugging_face.py")
        subprocess.run([python, str(worker), str(self.scratch / "jobs.json"), str(results)],
                       check=True)
        return numpy.load(results), json.loads(results.with_suffix(".json").read_text())

    def write_reference(self, arrays, job, sequences):
        path = self.scratch / f"{job.replace('/', '_')}.npz"
        numpy.savez(path, input_ids=arrays[f"{sequences}/sequences"],
                    logits=arrays[f"{job}/logits"])
        return path

    def note_logits(self, said):
        """What import printed of a comparison that it let pass."""
        found = re.search(r"(\d+) tokens, at most (\S+) from", said)
        self.expect(found is not None, f"import said nothing of logits: {said}")
        kind = "logits of caravan and transformers"
        self.largest[kind] = max(self.largest.get(kind, 0.0), float(found.group(2)))

    # --- export, import, export

    def export_all(self, name, checkpoint):
        """All kinds of one checkpoint, and each of them there and back."""
        for kind, options in EXPORTS.items():
            folder = self.scratch / f"{name}.{kind}"
            again, back = folder.with_suffix(f".{kind}-again"), folder.with_suffix(f".{kind}-back")
            what = f"{name}, {kind}"

            def there_and_back():
                self.caravan("export", checkpoint, "--output", folder, *options)
                self.caravan("import", folder, "--output", back)
                self.caravan("export", back, "--output", again, *options)
                return differing_files(folder, again)

            differing = self.attempt(what, there_and_back)
            if differing is None:
                continue
            self.expect(not differing, f"{what}: another export differs in {differing}")
            files = list(folder.glob("*.safetensors"))
            self.expect((len(files) > 1) == (kind == "sharded"), f"{what}: {len(files)} files")
            job = dict(name=f"{name}/{kind}", folder=str(folder), sequences_of=name)
            if name in self.trained:
                job["texts"] = str(self.trained[name]["texts"])
            self.jobs.append(job)

    def import_golden(self):
        """Golden folders against what transformers makes of them."""
        folders = sorted(f for f in (ROOT / "tests/golden/hf").iterdir() if f.is_dir())
        jobs = [dict(name=folder.name, folder=str(folder)) for folder in folders]
        arrays, _ = self.ask(self.pythons[0], jobs, self.scratch / "sources.npz")
        for folder in folders:
            checkpoint = self.scratch / f"{folder.name}.imported"
            reference = self.write_reference(arrays, folder.name, folder.name)
            command = ["import", folder, "--output", checkpoint, "--reference", reference,
                       "--tolerance", TOLERANCE]
            said = self.attempt(folder.name, lambda: self.caravan(*command))
            if said is not None:
                self.note_logits(said)
                self.export_all(folder.name, checkpoint)

    # --- models that are trained here

    def copy_tokenizer(self, name):
        """One of tests/golden, with a tokenizer_config.json in the words of transformers."""
        folder = self.scratch / f"{name}.tokenizer"
        shutil.copytree(ROOT / "tests/golden/tokenizers" / name, folder)
        path = folder / "tokenizer_config.json"
        said = json.loads(path.read_text())
        text = lambda token: token["content"] if isinstance(token, dict) else token
        said = {key: text(value) for key, value in said.items()}
        path.write_text(json.dumps(said | {"tokenizer_class": "PreTrainedTokenizerFast"}))
        return folder

    def train(self, name):
        tokenizer, model = models.TRAINED[name]
        data, run = self.scratch / f"{name}.data", self.scratch / f"{name}.run"
        config, texts = self.scratch / f"{name}.yaml", self.scratch / f"{name}.texts.json"
        documents = models.write_documents(self.scratch / "text.jsonl")
        texts.write_text(json.dumps(documents))
        source = (["--vocab-size", "600"] if tokenizer is None else
                  ["--tokenizer", self.copy_tokenizer(tokenizer)])
        models.write_config(config, data, model, run)

        def build_and_train():
            self.caravan("data", "build", self.scratch / "text.jsonl", "--output", data,
                         "--validation-fraction", "0", *source)
            self.caravan("train", config)
            return True

        if not self.attempt(f"{name}, training", build_and_train):
            return
        self.trained[name] = dict(data=data, texts=texts, run=run, config=config)
        self.export_all(name, run)
        self.start_from(name)

    def start_from(self, name):
        """The first loss from a checkpoint and from its export, on several meshes."""
        made = self.trained[name]
        checkpoint = next((made["run"] / "checkpoints").iterdir())
        starts = {"checkpoint": checkpoint, "folder": self.scratch / f"{name}.float32"}
        model = {"init_from": str(checkpoint)}
        config = self.scratch / f"{name}.start.yaml"
        models.write_config(config, made["data"], model, self.scratch / "unused")
        is_mixture = "num_local_experts" in models.TRAINED[name][1]
        losses = {}
        for start, path in starts.items():
            run = self.scratch / f"{name}.from-{start}"
            losses[start] = self.attempt(f"{name} from {start}", lambda: self.caravan.first_loss(
                config, run, [f"model.init_from={path}"]))
        self.expect(losses["checkpoint"] is not None and losses["checkpoint"] == losses["folder"],
                    f"{name}: first losses {losses} differ")
        drawn = self.attempt(f"{name} drawn", lambda: self.caravan.first_loss(
            made["config"], self.scratch / f"{name}.drawn", []))
        self.expect(drawn not in losses.values(), f"{name}: starts as if it had not been trained")
        for mesh, (ranks, options) in (models.EXPERT_MESHES if is_mixture
                                       else models.MESHES).items():
            run = self.scratch / f"{name}.on-{mesh}"
            overrides = [f"model.init_from={starts['folder']}", *options]
            loss = self.attempt(f"{name} on {mesh}", lambda: self.caravan.first_loss(
                config, run, overrides, ranks))
            if loss is not None and losses["folder"] is not None:
                self.expect_near(loss, losses["folder"], 1e-5, "first losses of meshes",
                                 f"{name}, first loss on {mesh}")

    # --- verdicts

    def judge_exports(self, python):
        # A model that was trained here is its own original: its float32 folder, whose weights
        # export has compared with the checkpoint's.
        results = self.scratch / "exports.npz"
        shutil.copyfile(self.scratch / "sources.npz", results)
        own = [dict(name=name, folder=str(self.scratch / f"{name}.float32"))
               for name in self.trained]
        arrays, problems = self.ask(python, own + self.jobs, results)
        version = problems["version"]
        for job in own + self.jobs:
            said = [line for line in problems[job["name"]] if not is_of_model(line, job["folder"])]
            self.expect(not said, f"transformers {version}, {job['name']}: " + "; ".join(said))
        for job in self.jobs:
            if f"{job['name']}/logits" in arrays:
                self.compare(job, arrays, version)
        return arrays

    def compare(self, job, arrays, version):
        name, source = job["name"], job["sequences_of"]
        what = f"transformers {version}, {name}"
        if not name.endswith("bfloat16"):
            self.expect_near(arrays[f"{name}/logits"], arrays[f"{source}/logits"], TOLERANCE,
                             "logits of transformers, folder and export", f"{what}, logits")
            self.expect(numpy.array_equal(arrays[f"{name}/sequences"],
                                          arrays[f"{source}/sequences"]), f"{what}, greedy tokens")
        if f"{name}/ids" in arrays:
            self.compare_ids(what, name, source, arrays)

    def compare_ids(self, what, name, source, arrays):
        """With the token file: bos, tokens and eos of each document."""
        with h5py.File(self.trained[source]["data"] / "train.h5") as file:
            tokens, offsets = file["tokens"][:].astype(int), file["document_offsets"][:]
            specials = {int(file.attrs["bos_id"]), int(file.attrs["eos_id"])}
        counts = numpy.cumsum(arrays[f"{name}/counts"])[:-1]
        ids = numpy.split(arrays[f"{name}/ids"], counts)
        self.expect(len(ids) == len(offsets) - 1, f"{what}: {len(offsets) - 1} documents")
        for number, found in enumerate(ids):
            document = tokens[offsets[number]:offsets[number + 1]]
            expected = [i for i in document if i not in specials]
            self.expect(list(found) == expected, f"{what}: ids of document {number}")
        wrong = numpy.flatnonzero(~arrays[f"{name}/decoded"])
        self.expect(not len(wrong), f"{what}: documents {wrong.tolist()} decode to another text")

    def judge_imports(self, arrays):
        """Our logits of every export against those of transformers, of bfloat16 too."""
        for job in self.jobs:
            if f"{job['name']}/logits" not in arrays:
                continue
            reference = self.write_reference(arrays, job["name"], job["sequences_of"])
            output = self.scratch / (job["name"].replace("/", ".") + "-judged")
            said = self.attempt(f"logits of {job['name']}", lambda: self.caravan(
                "import", job["folder"], "--output", output, "--reference", reference,
                "--tolerance", TOLERANCE))
            if said is not None:
                self.note_logits(said)

    def run(self):
        self.import_golden()
        for name in models.TRAINED:
            self.train(name)
        for python in self.pythons:
            arrays = self.judge_exports(python)
            if python == self.pythons[0]:
                self.judge_imports(arrays)
        for kind, distance in self.largest.items():
            print(f"at most {distance:.3g} apart: {kind}")
        print(f"{len(self.jobs)} exported folders, {self.num_checks} checks, "
              f"{len(self.findings)} wrong")
        return 1 if self.findings or not self.num_checks else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=ROOT / "build/caravan")
    parser.add_argument("--scratch", default=ROOT / "build/judge")
    parser.add_argument("--python", action="append", required=True,
                        help="one with transformers; once for each version")
    sys.exit(Judge(parser.parse_args()).run())


if __name__ == "__main__":
    main()
