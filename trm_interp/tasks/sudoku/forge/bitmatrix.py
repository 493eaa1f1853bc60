"""Bit matrices for the solver: n x n ones and zeros, a few interleaved in one word.

An `axes` is (n, stride of axis a, its index 0, stride of axis b, its index 0).
"""

from trm_interp.tasks.sudoku.forge.compiled import compiled


@compiled
def spread(bits, n, stride):
    """n copies, `stride` apart."""
    out = bits | bits << stride
    return out | bits << 2 * stride if n == 3 else out


@compiled
def fold(bits, n, stride):
    """The union of n parts, `stride` apart, in the lowest."""
    out = bits | bits >> stride
    return out | bits >> 2 * stride if n == 3 else out


@compiled
def lane(hh):
    """Mini-rows of one band."""
    return (1 << len(hh) * len(hh)) - 1


@compiled
def band_cells(hh, ww):
    """Candidate bits of one band."""
    H, W = len(hh), len(ww)
    return spread(lane(hh), W, H * max(H, W))


@compiled
def band_cols(hh, ww):
    """Mini-columns of band 0."""
    H, W = len(hh), len(ww)
    return spread((1 << H) - 1, W, H * max(H, W))


@compiled
def stack(hh, ww):
    """Mini-columns of stack 0."""
    H, W = len(hh), len(ww)
    return spread(spread(1, W, H * max(H, W)), W, H)


@compiled
def row_axes(hh, ww):
    """Mini-rows: row x box, a matrix per band."""
    H, W = len(hh), len(ww)
    return H, H, spread((1 << H) - 1, W, H * H), 1, spread(spread(1, H, H), W, H * H)


@compiled
def col_axes(hh, ww):
    """Mini-columns: column in the stack x band, a matrix per stack."""
    H, W = len(hh), len(ww)
    G = H * max(H, W)
    return W, G, spread((1 << H) - 1, W, H), H, spread((1 << H) - 1, W, G)


@compiled
def every(axes):
    """Ones everywhere."""
    return spread(axes[2], axes[0], axes[1])


@compiled
def roll(bits, n, stride, first):
    """Index i + 1 (mod n) of an axis comes to i."""
    return (bits & ~first) >> stride | (bits & first) << (n - 1) * stride


@compiled
def minors(bits, axes):
    """Entries whose minor (row and column struck out) still has a layout."""
    n, stride_a, first_a, stride_b, first_b = axes
    down = roll(bits, n, stride_a, first_a)
    down_right = roll(down, n, stride_b, first_b)
    if n == 2:
        return down_right
    down2 = roll(down, n, stride_a, first_a)
    down2_right = roll(down2, n, stride_b, first_b)
    down_right2 = roll(down_right, n, stride_b, first_b)
    return down_right & roll(down2_right, n, stride_b, first_b) | down_right2 & down2_right


@compiled
def has_layouts(bits, axes):
    """True where no matrix is empty, for bits that all lie in layouts."""
    n, _, _, stride_b, first_b = axes
    return fold(bits, n, stride_b) & first_b == first_b


@compiled
def sole(bits, axes):
    """Entries alone in their line along axis b, hence in every layout."""
    n, _, _, stride_b, first_b = axes
    right = roll(bits, n, stride_b, first_b)
    return bits & ~(right | roll(right, n, stride_b, first_b)) if n == 3 else bits & ~right


@compiled
def rivals(bits, axes):
    """Entries that share a line with one of `bits`."""
    n, stride_a, first_a, stride_b, first_b = axes
    down, right = roll(bits, n, stride_a, first_a), roll(bits, n, stride_b, first_b)
    if n == 2:
        return down | right
    return down | right | roll(down, n, stride_a, first_a) | roll(right, n, stride_b, first_b)


# ---- two sets of up to 27 bits in the halves of a word


@compiled
def both(one, other):
    return one | other << 32


@compiled
def low(word):
    return word & 0xFFFFFFFF


@compiled
def high(word):
    return word >> 32


@compiled
def in_halves(axes):
    """The axes of two such matrices, one in either half."""
    n, stride_a, first_a, stride_b, first_b = axes
    return n, stride_a, both(first_a, first_a), stride_b, both(first_b, first_b)
