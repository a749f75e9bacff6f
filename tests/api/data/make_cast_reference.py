#!/usr/bin/env python3
"""Writes cast_reference.txt: what numpy and ml_dtypes make of casts between element types.

Run with numpy 2 and ml_dtypes 0.5 or later:  python3 make_cast_reference.py > cast_reference.txt

The bits of elements are hexadecimal, all of the width of their type and run together. A line
"from TYPE" opens a section; the lines that follow, up to the next keyword, are its source values. A
line "to TYPE" opens the results for those sources, in the same order.

Left out is what the test can tell by itself: casts between integers (a comparison), to float64 and
complex (exact from what is here).

ml_dtypes goes from float64 and from integers to its types through float32, and numpy goes from
integers to float16 through it, so that some values are rounded twice. A result that is rounded once
comes from rounding to odd on the way: a float32 whose last bit says "and something more" cannot be
a tie, and has enough bits more than any target for the second rounding to be the only one.

ml_dtypes rounds float32's subnormals up to 2^-126 on their way to float8_e8m0fnu, even those next to
2^-127. To the nearest is what it does everywhere else, and what is written here.
"""

import numpy as np
import ml_dtypes

FLOAT8 = ["float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz",
          "float8_e5m2fnuz", "float8_e3m4", "float8_e4m3", "float8_e8m0fnu"]
FLOATS = ["float16", "bfloat16", "float32"] + FLOAT8 + ["float4_e2m1fn"]
INTEGERS = ["int2", "int4", "int8", "int16", "int32", "int64",
            "uint2", "uint4", "uint8", "uint16", "uint32", "uint64"]


def dtype(name):
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def bits(name):
    if name == "float4_e2m1fn" or name.endswith("int4"):
        return 4
    if name.endswith("int2"):
        return 2
    return dtype(name).itemsize * 8


def raw(array):
    return array.view(np.dtype(f"uint{array.dtype.itemsize * 8}"))


def values(name, patterns):
    width = dtype(name).itemsize * 8
    return np.array(patterns, dtype=f"uint{width}").view(dtype(name))


def float_edges(name, mantissa_bits, exponent_bits, step, seed):
    """Every exponent with the mantissas around the ties of narrower types, and random patterns."""
    width = 1 + exponent_bits + mantissa_bits
    patterns = {0, 1, 2, 3}
    for exponent in range(0, 1 << exponent_bits, step):
        patterns |= {exponent << mantissa_bits, (exponent << mantissa_bits) | 1}
    for exponent in sorted({(1 << exponent_bits) - 1} | {
            (1 << (exponent_bits - 1)) - 1 + offset
            for offset in (-150, -133, -128, -127, -126, -25, -24, -17, -15, -14, -11, -10, -7, -4,
                           -2, -1, 0, 1, 2, 4, 7, 8, 14, 15, 16, 127)}):
        if not 0 <= exponent < 1 << exponent_bits:
            continue
        for kept in (0, 1, 2, 3, 4, 7, 10):  # The tie of a type with so many mantissa bits.
            if kept >= mantissa_bits:
                continue
            tie = 1 << (mantissa_bits - kept - 1)
            for top in {0, 1, (1 << kept) - 1}:
                for delta in (-1, 0, 1):
                    mantissa = (top << (mantissa_bits - kept)) + tie + delta
                    if 0 <= mantissa < 1 << mantissa_bits:
                        patterns.add(exponent << mantissa_bits | mantissa)
        patterns.add(exponent << mantissa_bits | ((1 << mantissa_bits) - 1))
    random = np.random.default_rng(seed)
    drawn = sorted(patterns)
    if len(drawn) > 240:
        kept = random.choice(len(drawn), 240, replace=False)
        drawn = [drawn[i] for i in sorted(kept)]
    special = [0, 1, ((1 << exponent_bits) - 1) << mantissa_bits,
               (((1 << exponent_bits) - 1) << mantissa_bits) - 1,
               (((1 << exponent_bits) - 1) << mantissa_bits) | 1 << (mantissa_bits - 1)]
    sign = 1 << (width - 1)
    result = set(special) | {p | sign for p in special}
    result |= {p | (sign if random.integers(4) == 0 else 0) for p in drawn}
    return sorted(result)


def integer_edges(name):
    width = bits(name)
    storage = dtype(name).itemsize * 8
    if width <= 8:
        mask = (1 << storage) - 1
        low = -(1 << (width - 1)) if name.startswith("int") else 0
        return [value & mask for value in range(low, low + (1 << width))]
    patterns = {0, 1, 2, 3, 5, 7, 9, 17, 448, 449, 464, 465, 479, 480, 481, 57344, 61440, 61441,
                65519, 65520, 65535}
    for power in range(2, width):
        patterns |= {(1 << power) - 1, 1 << power}
        for kept in (2, 3, 7, 10, 23):  # Ties of the targets, and one to either side.
            if power in (11, 14, 25, 33, 55, 62, 63) and power > kept + 1:
                for top in (0, 1):
                    tie = (1 << power) + (top << (power - kept)) + (1 << (power - kept - 1))
                    patterns |= {tie - 1, tie, tie + 1}
    patterns = {p for p in patterns if p < 1 << width}
    mask = (1 << width) - 1
    patterns |= {mask, mask - 1, mask >> 1, (mask >> 1) + 1}
    if name.startswith("int"):
        patterns |= {-p & mask for p in sorted(patterns)[::5]}
    return sorted(patterns)


def sources(name):
    if name in FLOAT8:
        return list(range(256))
    if name == "float4_e2m1fn":
        return list(range(16))
    if name == "bool":
        return [0, 1]
    layout = {"float16": (10, 5, 1), "bfloat16": (7, 8, 8), "float32": (23, 8, 8),
              "float64": (52, 11, 64)}
    if name in layout:
        mantissa_bits, exponent_bits, step = layout[name]
        return float_edges(name, mantissa_bits, exponent_bits, step, seed=mantissa_bits)
    return integer_edges(name)


def to_odd_float32(exact):
    """float64 or integers as float32: truncated, and the last bit set where something was lost."""
    if exact.dtype.kind == "f":
        nearest = exact.astype(np.float32)
        result = []
        for value, near in zip(exact, nearest):
            if np.isfinite(value) and float(near) != float(value):
                if abs(float(near)) > abs(float(value)):
                    near = np.nextafter(near, np.float32(0))
                near = raw(np.array([near]))[0] | np.uint32(1)
                near = np.array([near], np.uint32).view(np.float32)[0]
            result.append(near)
        return np.array(result, np.float32)
    result = []
    for value in exact:
        magnitude = abs(int(value))
        excess = max(0, magnitude.bit_length() - 24)
        lost = magnitude & ((1 << excess) - 1)
        odd = ((magnitude >> excess) | (1 if lost else 0)) << excess
        result.append(-odd if int(value) < 0 else odd)  # 24 bits: exact as float32.
    return np.array(result, np.float32)


def to_e8m0(array):
    """ml_dtypes' result; for float32's subnormals, that of the same value a few powers higher."""
    higher = 64
    is_subnormal = (array > 0) & (array < np.float32(2.0**-126))
    scaled = np.where(is_subnormal, array * np.float32(2.0**higher), array)
    codes = raw(scaled.astype(dtype("float8_e8m0fnu"))).astype(int)
    codes = np.where(is_subnormal, np.maximum(codes - higher, 0), codes)
    return codes.astype(np.uint8)


def cast(array, source, target):
    if source == "float64" and target not in ("float16", "float32"):
        array = to_odd_float32(array)
    if source in INTEGERS and bits(source) > 16 and target != "float32":
        array = to_odd_float32(array)
    if bits(source) <= 16:
        array = array.astype(np.float32)  # Exact; some pairs have no direct cast.
    if target == "float8_e8m0fnu":
        return to_e8m0(array.astype(np.float32))
    return array.astype(dtype(target))


def write(patterns, width):
    digits = max(1, width // 4)
    text = "".join(f"{p & ((1 << width) - 1):0{digits}x}" for p in patterns)
    line = 96 // digits * digits
    for start in range(0, len(text), line):
        print(text[start:start + line])


def main():
    np.seterr(all="ignore")
    print("# Written by make_cast_reference.py; numpy " + np.__version__ + ", ml_dtypes " +
          ml_dtypes.__version__ + ".")
    for source in ["bool"] + INTEGERS + FLOATS + ["float64"]:
        patterns = sources(source)
        array = values(source, patterns)
        print("from", source)
        write(patterns, bits(source))
        for target in FLOATS:
            if target == source:
                continue
            print("to", target)
            write(raw(cast(array, source, target)).tolist(), bits(target))


if __name__ == "__main__":
    main()
