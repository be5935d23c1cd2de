"""CRC-32 of two byte strings put together, from the CRC-32 of each."""

from __future__ import annotations

# The polynomial of zip's CRC-32, lowest power first in the highest bit.
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31


def joined(first: int, second: int, second_bytes: int) -> int:
    """The CRC-32 of A + B, where ``first`` is A's, ``second`` is B's, and B has so many bytes.

    Appending n zero bytes to A multiplies its remainder by x to the power 8 n, modulo the
    polynomial; the rest of the sum is B's own (M. Adler, ``crc32_combine`` in zlib).
    """
    power, square, exponent = _ONE, _ONE >> 1, 8 * second_bytes
    while exponent:
        if exponent & 1:
            power = _product(power, square)
        square = _product(square, square)
        exponent >>= 1
    return _product(power, first) ^ second


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo the polynomial."""
    result, mask = 0, _ONE
    while mask:
        if a & mask:
            result ^= b
        mask >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result
