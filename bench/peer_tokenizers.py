"""Hugging Face's `tokenizers` on one thread: trains the vocabulary of the benchmark, or times it.

train TEXT FOLDER [SIZE]: byte-level BPE with Llama 3's pre-tokeniser. time FOLDER TEXT ROUNDS: one
JSON line, MB/s (1e6 bytes) of each round, over the pieces of text that bench_tokenizer takes.
"""

import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers  # noqa: E402
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

DOCUMENT_BYTES = 64 << 10
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(text, folder, size):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end_of_text|>"}\n')
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def documents(text):
    """Up to the last line that ends within 64 KiB, as line_cut() does."""
    data, result = text.encode(), []
    while data:
        is_last = len(data) <= DOCUMENT_BYTES
        size = len(data) if is_last else data.rfind(b"\n", 0, DOCUMENT_BYTES) + 1
        result.append(data[:size].decode())
        data = data[size:]
    return result


def measure(folder, text, rounds):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    pieces, speeds = documents(text), []
    for _ in range(rounds):
        begin = time.perf_counter()
        # Without offsets, which is the fastest that the library has.
        encodings = tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        speeds.append(len(text.encode()) / 1e6 / (time.perf_counter() - begin))
    num_tokens = sum(len(encoding.ids) for encoding in encodings)
    print(json.dumps({"tokens": num_tokens, "MB_per_s": speeds,
                      "vocab_size": tokenizer.get_vocab_size(),
                      "version": tokenizers.__version__}))


def main():
    task, *words = sys.argv[1:]
    if task == "train":
        train(pathlib.Path(words[0]).read_text(), pathlib.Path(words[1]), int(words[2]))
    else:
        measure(pathlib.Path(words[0]), pathlib.Path(words[1]).read_text(), int(words[2]))


if __name__ == "__main__":
    main()
