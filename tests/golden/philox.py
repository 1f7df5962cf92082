"""NumPy twin of runtime/rng.h: Philox4x32-10 streams over whole arrays of elements.

It exists so that PyTorch starts from the weights and tokens that the C++ code makes.
check_philox.cpp prints the values that `python philox.py` must print too.
"""

import enum
import struct

import numpy as np

LOW_WORD = np.uint64(0xFFFFFFFF)


class RandomPurpose(enum.IntEnum):
    INIT = 1
    SHUFFLE = 2
    MIXTURE = 3
    DROPOUT = 4
    TEST = 5


def philox(counter, key):
    """counter: four uint64 arrays of 32-bit words; key: two ints. Returns four such arrays."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & LOW_WORD
        c2, c3 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & LOW_WORD
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words(value):
    return value & 0xFFFFFFFF, value >> 32


def to_unit(high, low):
    """53 bits as a double in [0, 1)."""
    return ((high << np.uint64(32) | low) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def stable_hash(text):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


class RandomStream:
    """Every method takes an array of element numbers and returns one value for each."""

    def __init__(self, seed, purpose, index):
        self.key = words(seed)
        block = (*words(index), int(purpose), 0x0CA7AFA2)
        mixed = philox([np.array([word], np.uint64) for word in block], self.key)
        self.high = mixed[:2]

    def block(self, elements):
        elements = np.asarray(elements, np.uint64)
        return philox((elements & LOW_WORD, elements >> np.uint64(32), *self.high), self.key)

    def bits(self, elements):
        r = self.block(elements)
        return r[0] << np.uint64(32) | r[1]

    def uniform(self, elements):
        r = self.block(elements)
        return to_unit(r[0], r[1])

    def normal(self, elements):
        r = self.block(elements)
        radius = np.sqrt(-2.0 * np.log1p(-to_unit(r[0], r[1])))
        return radius * np.cos(2.0 * np.pi * to_unit(r[2], r[3]))


def print_samples():
    elements = np.array([0, 1, 2, 7, 1000, 2**32 - 1, 2**32, 2**40 + 5], np.uint64)
    for name in ("model.embed_tokens.weight", "model.layers.5.mlp.down_proj.weight", ""):
        print(f"{name} {stable_hash(name):016x}")
        for seed in (1, 1234, 2**33 + 17):
            for purpose in RandomPurpose:
                stream = RandomStream(seed, purpose, stable_hash(name))
                rows = zip(stream.bits(elements), stream.uniform(elements), stream.normal(elements))
                for bits, uniform, normal in rows:
                    # Weights are floats, so normals are compared as floats: the last bit of a
                    # double may differ between two libraries' cosines.
                    print(f"{bits:016x} {as_word('d', uniform):016x} {as_word('f', normal):08x}")


def as_word(code, value):
    """The bytes of a float ('f') or double ('d') as an integer."""
    return int.from_bytes(struct.pack(">" + code, value), "big")


if __name__ == "__main__":
    print_samples()
