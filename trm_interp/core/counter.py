"""Random numbers as a pure function of counters: no generator state, same bits on CPU and CUDA.

A draw is named by what it is for, `hash64(seed, epoch, puzzle)`: any of them can be had again,
in any order, which is what makes a resumed or a reordered run equal to the plain one.
"""

import math

import torch
from torch import Tensor

from trm_interp.core.devices import has_float64

_BITS = 64
_GAMMA = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    number %= 1 << _BITS
    return number - (1 << _BITS) if number >> (_BITS - 1) else number


def _xor_shift(bits: Tensor, by: int) -> Tensor:
    # int64 shifts copy the sign bit; the mask makes the shift a logical one
    return bits ^ ((bits >> by) & ((1 << (_BITS - by)) - 1))


def _splitmix64(bits: Tensor) -> Tensor:
    bits = bits + _signed(_GAMMA)
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        bits = _xor_shift(bits, shift) * _signed(multiplier)
    return _xor_shift(bits, _SHIFTS[-1])


def hash64(*parts: Tensor | int) -> Tensor:
    """64 well-mixed bits (int64, negative ones included) of integer parts, broadcast together.

    splitmix64 (Steele, Lea & Flood, OOPSLA 2014; Vigna's reference constants), chained as
    hash64(a, b) = splitmix64(hash64(a) ^ b): order matters, and with the other parts fixed each
    part gives different bits for different values. Integers count modulo 2**64; tensors are read
    as int64. All tensors sit on one device; the result does too (CPU for integers alone).

    >>> hex(int(hash64(0)) % 2**64)  # first output of the reference generator with seed 0
    '0xe220a8397b1dcdaf'
    >>> bool(hash64(1, 2) == hash64(2, 1))
    False
    """
    if not parts:
        raise ValueError("hash64 needs at least one part")
    mixed = torch.zeros((), dtype=torch.int64)  # joins tensors on any device without a copy
    for part in parts:
        counter = torch.tensor(_signed(part)) if isinstance(part, int) else part
        if counter.is_floating_point():
            raise TypeError(f"hash64 mixes integers, got {counter.dtype}")
        mixed = _splitmix64(mixed ^ counter.to(torch.int64))
    return mixed


def uniform(*parts: Tensor | int) -> Tensor:
    """float64 in [0, 1), a multiple of 2**-53: the top 53 bits of `hash64(*parts)`.

    On a device without float64 the top 24 bits of the same hash, in float32.

    >>> round(float(uniform(0)), 6)
    0.883311
    """
    bits = hash64(*parts)
    # bits of a significand
    kept, dtype = (53, torch.float64) if has_float64(bits.device) else (24, torch.float32)
    top = (bits >> (_BITS - kept)) & ((1 << kept) - 1)
    return top.to(dtype) * 2.0**-kept


def normal(n: int, *parts: Tensor | int) -> Tensor:
    """float32 [..., n], independent standard normal draws for each of the broadcast `parts`.

    Box & Muller (1958) on the halves of hash64(*parts, i): one hash gives two draws. Computed in
    float64, so that what a device's logarithm or cosine rounds otherwise is gone in float32; on the
    CPU for a device that has no float64.

    >>> normal(3, 0, 1).shape, bool(normal(3, 0, 1)[0] == normal(9, 0, 1)[0])
    (torch.Size([3]), True)
    """
    pairs = (n + 1) // 2
    base = hash64(*parts)
    bits = hash64(base[..., None], torch.arange(pairs, device=base.device))  # [..., pair]
    device = bits.device
    bits = bits if has_float64(device) else bits.cpu()
    half = 1 << (_BITS // 2)
    first, second = (bits >> (_BITS // 2)) & (half - 1), bits & (half - 1)
    radius = (-2 * ((first.double() + 0.5) / half).log()).sqrt()
    angle = second.double() * (2 * math.pi / half)
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)  # [..., pair, 2]
    return both.flatten(-2)[..., :n].float().to(device)
