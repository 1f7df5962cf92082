"""What the judge trains: three small models, the text for it, and their configurations."""

import json
import pathlib
import random

# Text in which tokenizers go wrong: runs of spaces, digits, code, many scripts, emoji, newlines.
HARD_TEXTS = [
    "Hello   world,  how    are you?",
    " leading and trailing  ",
    "1 12 123 1234 12345 3.14159e-10 0x7fff_ffff",
    "def f(x):\n    if x:\n\t\treturn x ** 2\n\n\n    return None\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; }  // sum\r\n",
    "\u4e2d\u6587\u8bcd\u8bed\uff0c\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002"
    "\ud55c\uad6d\uc5b4",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea\u2764\ufe0f!!!",
    "na\u00efve caf\u00e9 e\u0301 \u00df \u0130stanbul \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea "
    "\u0939\u093f\u0928\u094d\u0926\u0940",
    "line\nline\n\nline\n\n\n   \n\tline",
    "don't WON'T it's I'LL we'Ve",
    "\u00a0no-break\u2009thin\u3000wide\ufefftext\u200b",
    "a" * 50 + " " * 30 + "b" * 20,
]
WORDS = "the caravan crosses a valley with seven llamas that carry one load over a bridge".split()

TINY = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.2,
    max_position_embeddings=128,
)
SCALED_ROPE = dict(
    rope_type="llama3",
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
# By name: the tokenizer (a folder of tests/golden/tokenizers; None: SentencePiece, trained here)
# and the model. Chunks are shorter than the sequence; two vocabularies are padded, so that two
# ranks of tp can share them.
TRAINED = {
    "trained_tied": (None, TINY | dict(tie_word_embeddings=True)),
    "trained_biases": (
        "llama3",
        TINY | dict(vocab_size=2306, attention_bias=True, mlp_bias=True, rope_scaling=SCALED_ROPE),
    ),
    "trained_experts": (
        "llama4",
        TINY
        | dict(
            family="llama4_text",
            vocab_size=2608,
            num_local_experts=4,
            num_experts_per_tok=2,
            interleave_moe_layer_step=2,
            intermediate_size_mlp=64,
            num_hidden_layers=4,
            attention_chunk_size=16,
            no_rope_layer_interval=3,
            floor_scale=8,
        ),
    ),
}
# Meshes on which a run must begin as one process does.
MESHES = {
    "dp2_zero3": (2, ["parallel.zero=3"]),
    "tp2": (2, ["parallel.tp=2"]),
    "dp2_tp2": (4, ["parallel.tp=2"]),
}
EXPERT_MESHES = MESHES | {"ep2": (2, ["parallel.ep=2"])}


def documents():
    """The hard texts, and sentences between them so that there is enough to train on."""
    draw = random.Random(5)
    sentence = lambda: " ".join(draw.choice(WORDS) for _ in range(12)).capitalize() + "."
    texts = list(HARD_TEXTS)
    for _ in range(120):
        texts.append(" ".join(sentence() for _ in range(6)))
    return texts


def write_documents(path):
    texts = documents()
    pathlib.Path(path).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return texts


def write_config(path, data, model, output):
    """JSON is YAML."""
    config = dict(
        output_dir=str(output),
        model=model,
        data=dict(train=str(data), sequence_len=48),
        train=dict(max_steps=5, micro_batch_size=2, global_batch_size=8, seed=3),
        optimizer=dict(learning_rate=3e-3, lr_scheduler_type="constant", warmup_steps=2),
        runtime=dict(threads=1),
        log=dict(logging_steps=1),
    )
    pathlib.Path(path).write_text(json.dumps(config))
