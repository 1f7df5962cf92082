"""Makes what tests/data/tokenizer_golden_test.cpp compares with: ids of Hugging Face's `tokenizers`.

tokenizers/NAME/ holds a small byte-level BPE for each pre-tokeniser that is supported, trained here
(--train; else those that are there are used). tokenizers/golden.json has by block of made-up text the
number of ids and a checksum; the text is made by the same generator here and in the test.
tokenizers/exported/tokenizer.json is Caravan's own export of a SentencePiece vocabulary, which the
test writes with CARAVAN_UPDATE_GOLDEN=1.
"""

import json
import pathlib
import platform
import sys
import unicodedata

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers import processors, trainers

FOLDER = pathlib.Path(__file__).resolve().parent / "tokenizers"
NUM_BLOCKS, BLOCK_BYTES = 160, 1 << 16
CODE_POINTS_PER_BLOCK = 1024
MASK = (1 << 64) - 1

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
LLAMA4 = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


class Random:
    """Knuth's 64-bit linear congruential generator; the upper bits are used."""

    def __init__(self, seed):
        self.state = (seed * 2 + 1) & MASK

    def draw(self, limit):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 33) % limit


def read_pieces():
    lines = (FOLDER / "pieces.txt").read_text(encoding="ascii").splitlines()
    unescape = lambda line: line.encode().decode("unicode_escape").encode("latin-1")
    return [unescape(line) for line in lines if line]


def make_block(pieces, number):
    random = Random(number)
    text = bytearray()
    while len(text) < BLOCK_BYTES:
        piece = pieces[random.draw(len(pieces))]
        kind = random.draw(32)
        count = 1 + random.draw(90) if kind == 0 else 1 + random.draw(4) if kind < 4 else 1
        text += piece * count
        if random.draw(2) == 0:
            text += b" "
    return bytes(text)


def checksum(ids):
    values = np.asarray(ids, dtype=np.uint64)
    places = np.arange(1, len(values) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    places ^= places >> np.uint64(29)
    return f"{int(np.sum((values + np.uint64(1)) * places, dtype=np.uint64)):016x}"


def golden_of(tokenizer, texts, special):
    tokenizer.encode_special_tokens = not special
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [[len(e.ids), checksum(e.ids)] for e in encodings]


def code_points():
    """Assigned ones of Unicode 14, as PCRE2 10.42 has; of private ones a few."""
    assert unicodedata.unidata_version == "14.0.0", "use Python 3.11"
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category not in ("Cn", "Cs") and (category != "Co" or code % 256 == 0):
            yield code


def code_point_text(c):
    return f"a{c}b {c}{c}1{c}2\n{c} \t{c}'{c}s'{c}\n"


def code_point_blocks():
    texts = [code_point_text(chr(code)) for code in code_points()]
    size = CODE_POINTS_PER_BLOCK
    return ["".join(texts[i:i + size]) for i in range(0, len(texts), size)]


def added(content, special=False, **flags):
    return AddedToken(content, special=special, **flags)


def train(name, text, steps, size, added_tokens):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = steps
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=[],
                                  initial_alphabet=pre.ByteLevel.alphabet())
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_tokens(added_tokens)
    return tokenizer


def template(before, tokenizer):
    return processors.TemplateProcessing(
        single=f"{before} $A", pair=f"{before} $A {before}:1 $B:1",
        special_tokens=[(before, tokenizer.token_to_id(before))])


def save(name, tokenizer, config, change=lambda fields: None):
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    fields = json.loads(tokenizer.to_str())
    change(fields)
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def token_config(bos, eos):
    as_token = lambda content: {"__type": "AddedToken", "content": content}
    return {"bos_token": as_token(bos), "eos_token": as_token(eos)}


def split(pattern):
    return pre.Split(Regex(pattern), behavior="isolated")


def train_all(pieces):
    text = [make_block(pieces, 1000 + i).decode(errors="replace") for i in range(8)]
    level = pre.ByteLevel(add_prefix_space=False, use_regex=False)

    gpt2 = train("gpt2", text, pre.ByteLevel(add_prefix_space=False), 2200,
                 [added("<|endoftext|>", special=True, normalized=False)])
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)

    def old_style(fields):  # as files from before 2024 are
        fields["model"]["merges"] = [" ".join(pair) for pair in fields["model"]["merges"]]
        del fields["model"]["type"], fields["model"]["ignore_merges"]
        fields["model"].update(continuing_subword_prefix="", end_of_word_suffix="")

    save("gpt2", gpt2, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}, old_style)

    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|eot_id|>"]
    llama3 = train("llama3", text, pre.Sequence([split(LLAMA3), level]), 2300,
                   [added(name, special=True, normalized=False) for name in names])
    llama3.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(names[0], llama3)])

    def some_unreachable(fields):  # entries that no merge gives: ignore_merges finds them
        fields["model"]["ignore_merges"] = True
        merges = fields["model"]["merges"]
        fields["model"]["merges"] = [m for i, m in enumerate(merges) if i < 500 or i % 7]

    save("llama3", llama3, {"bos_token": names[0], "eos_token": {"__type": "AddedToken", "content": names[1]}},
         some_unreachable)

    llama4 = train("llama4", text, pre.Sequence([split(LLAMA4), level]), 2600, [
        added("<|begin_of_text|>", special=True, normalized=False),
        added("<|end_of_text|>", special=True, normalized=False, rstrip=True),
        added("<|eot|>", special=True, normalized=False, lstrip=True),
        added("<think>", normalized=True), added("think", normalized=True, single_word=True),
        added("<th", normalized=False), added("    ", normalized=True),
        added("        ", normalized=True), added("camel", normalized=True, lstrip=True),
        added("Ġé", normalized=True, rstrip=True)])
    llama4.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template("<|begin_of_text|>", llama4)])
    save("llama4", llama4, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"})

    bos, eos = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    deepseek = train("deepseek", text, pre.Sequence([*map(split, DEEPSEEK), level]), 2600, [
        added(bos, special=True, normalized=True), added(eos, special=True, normalized=True),
        added("<｜User｜>", normalized=True), added("<think>", normalized=True)])
    deepseek.normalizer = normalizers.Sequence([])
    deepseek.post_processor = processors.ByteLevel(trim_offsets=False)
    save("deepseek", deepseek, token_config(bos, eos))


def main():
    pieces = read_pieces()
    if "--train" in sys.argv:
        train_all(pieces)
    blocks = [make_block(pieces, i).decode(errors="replace") for i in range(NUM_BLOCKS)]
    points = code_point_blocks()
    golden = {"made_by": f"tokenizers {tokenizers.__version__}, Python {platform.python_version()}",
              "bytes": sum(len(make_block(pieces, i)) for i in range(NUM_BLOCKS)),
              "num_code_points": sum(1 for _ in code_points()), "tokenizers": {}}
    for name in ("gpt2", "llama3", "llama4", "deepseek", "exported"):
        path = FOLDER / name / "tokenizer.json"
        if not path.exists():
            print(f"{path} is missing")
            continue
        tokenizer = Tokenizer.from_file(str(path))
        texts = [b.replace("▁", "") for b in blocks] if name == "exported" else blocks
        entry = {"plain": golden_of(tokenizer, texts, False)}
        if name != "exported":
            entry["code_points"] = golden_of(tokenizer, points, False)
        entry["special"] = golden_of(tokenizer, texts, True)
        entry["with_prefix"] = tokenizer.encode("a b", add_special_tokens=True).ids
        golden["tokenizers"][name] = entry
        print(name, tokenizer.get_vocab_size(), sum(n for n, _ in entry["plain"]))
    text = json.dumps(golden, indent=None, separators=(",", ":")).replace("]],", "]],\n")
    (FOLDER / "golden.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
