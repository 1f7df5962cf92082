#!/usr/bin/env python3
"""Writes tests/golden/arrays: small .npz and .npy files by NumPy itself.

    python3 -m venv build/bench-venv && build/bench-venv/bin/pip install numpy
    build/bench-venv/bin/python tests/golden/make_arrays.py

logits[t, v] = t - v / 8, input_ids[t] = 100000 * t - 7; exact in every type that holds them.
"""
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "arrays"
TOKENS, VOCABULARY = 6, 500


def main():
    FOLDER.mkdir(exist_ok=True)
    logits = np.arange(TOKENS)[:, None] - np.arange(VOCABULARY)[None, :] / 8
    ids = 100000 * np.arange(TOKENS) - 7
    for name, save in (("stored", np.savez), ("deflated", np.savez_compressed)):
        save(
            FOLDER / f"{name}.npz",
            logits=logits.astype(np.float32),
            logits16=logits.astype(np.float16),
            logits64=logits.astype(np.float64),
            transposed=np.asfortranarray(logits.astype(np.float32)),
            input_ids=ids.astype(np.int64),
            input_ids32=ids.astype(np.int32),
            bytes=np.arange(3, dtype=np.uint8),
            swapped=np.arange(3, dtype=">i4"),
            scalar=np.float32(2.5),
            empty=np.zeros((0, 4), np.float32),
        )
    special = [np.inf, -np.inf, np.nan, -0.0, 65504, 2**-24, -(2**-14), 2**-14 - 2**-24]
    np.save(FOLDER / "special16.npy", np.array(special, np.float16))
    np.save(FOLDER / "objects.npy", np.array([{"a": 1}, None], object), allow_pickle=True)
    np.save(FOLDER / "record.npy", np.zeros(2, [("a", "<f4"), ("b", "<i4")]))


if __name__ == "__main__":
    main()
