"""Loads folders in Hugging Face's transformers and says what it saw. Run by judge.py, once for each
version of transformers, with that version's Python: hugging_face.py JOBS.json RESULTS.npz.

A job: name, folder; sequences_of (the name of an earlier job: logits are of its sequences, too);
texts (a file: ids of its texts by the folder's tokenizer). Results by "NAME/what": logits (B, T, V)
and sequences (B, T), what greedy decoding made of three prompts; ids; and RESULTS.json: problems by
name: every warning, every missing or unexpected key.
"""

import json
import logging
import pathlib
import sys
import warnings

import numpy
import torch
import transformers

NUM_PROMPTS, PROMPT_LEN, NUM_NEW = 3, 12, 50


class Collector(logging.Handler):
    """Everything that transformers says at the level of a warning or above."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(f"{record.name}: {record.getMessage()}")


def collect(action):
    """The result of `action`, and what was logged or warned of meanwhile."""
    collector = Collector()
    logger = logging.getLogger("transformers")
    logger.addHandler(collector)
    # What is said once only is to be said for each folder.
    logging.Logger.warning_once.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = action()
    finally:
        logger.removeHandler(collector)
    return result, collector.lines + [f"{w.category.__name__}: {w.message}" for w in caught]


def load(folder, is_export):
    """The network in float32, and what loading reports."""
    name = json.loads((pathlib.Path(folder) / "config.json").read_text())["architectures"][0]
    kind = transformers.AutoModelForCausalLM if is_export else getattr(transformers, name)
    network, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    found = type(network).__name__
    problems = [] if found == name else [f"loaded as {found}, not {name}"]
    for what, keys in info.items():
        if keys:
            problems.append(f"{what}: {sorted(map(str, keys))}")
    return network.eval(), problems


def prompts_for(vocab_size):
    generator = torch.Generator().manual_seed(11)
    return torch.randint(0, vocab_size, (NUM_PROMPTS, PROMPT_LEN), generator=generator)


@torch.no_grad()
def continue_prompts(network):
    """As a user does it: generation_config.json counts, the cache is used."""
    prompts = prompts_for(network.get_output_embeddings().weight.shape[0])
    return network.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        min_new_tokens=NUM_NEW,
        max_new_tokens=NUM_NEW,
        pad_token_id=0,
    )


@torch.no_grad()
def judge(job, results, problems):
    name, folder = job["name"], job["folder"]
    is_export = "sequences_of" in job
    (network, reports), lines = collect(lambda: load(folder, is_export))
    sequences, more = collect(lambda: continue_prompts(network))
    results[f"{name}/sequences"] = sequences.numpy()
    read = results[f"{job['sequences_of']}/sequences"] if is_export else sequences.numpy()
    logits, still_more = collect(lambda: network(input_ids=torch.from_numpy(read)).logits)
    results[f"{name}/logits"] = logits.numpy()
    lines += more + still_more
    if "texts" in job:
        texts = json.loads(pathlib.Path(job["texts"]).read_text())
        tokenizer, more = collect(lambda: transformers.AutoTokenizer.from_pretrained(folder))
        ids, still_more = collect(
            lambda: [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        )
        lines += more + still_more
        results[f"{name}/ids"] = numpy.concatenate([numpy.asarray(i, dtype=int) for i in ids])
        results[f"{name}/counts"] = numpy.asarray([len(i) for i in ids])
        back = [tokenizer.decode(i, clean_up_tokenization_spaces=False) for i in ids]
        results[f"{name}/decoded"] = numpy.asarray([b == t for b, t in zip(back, texts)])
    problems[name] = reports + lines


def main():
    jobs_path, results_path = sys.argv[1:]
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    results, problems = {}, {"version": transformers.__version__}
    given = pathlib.Path(results_path)
    if given.exists():  # of an earlier call, whose sequences are wanted
        results.update(numpy.load(given))
    for job in json.loads(pathlib.Path(jobs_path).read_text()):
        try:
            judge(job, results, problems)
        except Exception as error:  # one folder that does not load is a finding, not the end
            problems[job["name"]] = [f"{type(error).__name__}: {error}"]
    numpy.savez(given, **results)
    given.with_suffix(".json").write_text(json.dumps(problems, indent=1))


if __name__ == "__main__":
    main()
