#!/usr/bin/env python3
"""Writes tests/golden/token_files: small token files, laid out as nanoGPT, llm.c and Megatron-LM
lay them out. Needs nothing beside Python; `struct` writes, so that every field is in plain sight.

    python3 tests/golden/make_token_files.py

Three documents of 5, 0 and 9 tokens that count up, each ended by eos.
"""
import pathlib
import struct

FOLDER = pathlib.Path(__file__).parent / "token_files"
LENGTHS = [5, 0, 9]
GPT2_EOS = 50256
LLAMA3_EOS = 128001


def documents(first, eos):
    result = []
    for length in LENGTHS:
        result.append(list(range(first, first + length)) + [eos])
        first += length
    return result


def pack(code, numbers):
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def flat(lists):
    return [token for tokens in lists for token in tokens]


def write(name, content):
    (FOLDER / name).write_bytes(content)


def llmc(magic, version, code, tokens):
    header = [magic, version, len(tokens)] + [0] * 253
    return pack("i", header) + pack(code, tokens)


def megatron(name, type_code, code, texts):
    """A document is one sequence; the index has lengths, first bytes and first sequences."""
    lengths = [len(text) for text in texts]
    width = struct.calcsize(f"<{code}")
    pointers = [sum(lengths[:i]) * width for i in range(len(lengths))]
    index = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", type_code)
    index += struct.pack("<QQ", len(lengths), len(lengths) + 1)
    index += pack("i", lengths) + pack("q", pointers) + pack("q", list(range(len(lengths) + 1)))
    write(f"{name}_text_document.bin", pack(code, flat(texts)))
    write(f"{name}_text_document.idx", index)


def main():
    FOLDER.mkdir(exist_ok=True)
    gpt2 = documents(300, GPT2_EOS)
    llama3 = documents(100000, LLAMA3_EOS)
    write("nanogpt.bin", pack("H", flat(gpt2)))
    write("llmc_gpt2.bin", llmc(20240520, 1, "H", flat(gpt2)))
    write("llmc_llama3.bin", llmc(20240801, 7, "I", flat(llama3)))
    megatron("megatron_u16", 8, "H", gpt2)
    megatron("megatron_i32", 4, "i", llama3)


if __name__ == "__main__":
    main()
