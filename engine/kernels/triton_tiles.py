# mypy: ignore-errors
"""What the Triton kernels of triton_lstm.py are made of: places in the weights, elementary functions, tiles.

Sizes are padded (units H to HP, features F to FP), and padding holds zeros: a padded unit stays 0 and gets no slope.
"""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # nothing here is called without it: `triton_tape.supports`
    triton = tl = None


def jit(function):
    return function if triton is None else triton.jit(function)


# ---- places in the weights -------------------------------------------------------------------------------------------


@jit
def bias_at(layer, LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):  # [4, HP]
    return 4 * HP * layer


@jit
def head_at(LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):  # weight [HP], then bias in the first of HP
    return 4 * HP * LAYERS


@jit
def entrance_at(LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):  # bias [HP], then weight [FP, HP]
    return 4 * HP * LAYERS + 2 * HP


@jit
def hidden_at(layer, LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):  # [4, HP, HP]
    return (4 * LAYERS + 3 + FP) * HP + 4 * HP * HP * layer


@jit
def input_at(layer, LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):
    """[4, HP, HP]; the first layer's comes last, because it may be [4, FP, HP]."""
    return (4 * LAYERS + 3 + FP) * HP + 4 * HP * HP * (LAYERS + (layer + LAYERS - 1) % LAYERS)


# ---- elementary functions --------------------------------------------------------------------------------------------


@jit
def expm1_of(x):
    """e^x - 1 for x <= 0, without cancellation: a Taylor series above -1/2."""
    TERMS: tl.constexpr = 15 if x.dtype == tl.float64 else 9
    series = 1.0 + x * (1.0 / TERMS)
    for k in tl.static_range(TERMS - 1, 1, -1):
        series = 1.0 + x * series * (1.0 / k)
    return tl.where(x > -0.5, x * series, tl.exp(x) - 1.0)


@jit
def tanh_of(x):
    m = expm1_of(-2.0 * tl.abs(x))
    size = -m / (2.0 + m)
    return tl.where(x < 0, -size, size)


@jit
def sigmoid_of(x):
    return 1.0 / (1.0 + tl.exp(-x))


# ---- tiles -----------------------------------------------------------------------------------------------------------


@jit
def load_unit(rows, unit, row, coordinates, COUNT: tl.constexpr, PADDED: tl.constexpr):
    """Rows of [units, N, COUNT] as a tile [BLOCK, PADDED]; 0 beyond."""
    column = tl.arange(0, PADDED)
    inside = (row < coordinates)[:, None] & (column < COUNT)[None, :]
    at = (tl.cast(coordinates, tl.int64) * unit + row)[:, None] * COUNT + column[None, :]  # beyond 2^31 of them
    return tl.load(rows + at, mask=inside, other=0.0)


@jit
def store_unit(rows, tile, unit, row, coordinates, COUNT: tl.constexpr, PADDED: tl.constexpr):
    column = tl.arange(0, PADDED)
    inside = (row < coordinates)[:, None] & (column < COUNT)[None, :]
    at = (tl.cast(coordinates, tl.int64) * unit + row)[:, None] * COUNT + column[None, :]
    tl.store(rows + at, tile, mask=inside)


@jit
def matrix_at(pointer, ROWS: tl.constexpr, HP: tl.constexpr):
    return pointer + tl.arange(0, ROWS)[:, None] * HP + tl.arange(0, HP)[None, :]


@jit
def times(a, b):
    return tl.dot(a, b, input_precision="ieee")


@jit
def affine(x, matrix, bias, INPUTS: tl.constexpr, HP: tl.constexpr):
    """x W + b, [BLOCK, HP]; x [BLOCK, INPUTS], pointers to W [INPUTS, HP] and b [HP]."""
    return times(x, tl.load(matrix_at(matrix, INPUTS, HP))) + tl.load(bias + tl.arange(0, HP))[None, :]


@jit
def entered_of(features, weights, LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):
    """The entrance: ELU(W f + b), [BLOCK, HP]."""
    at = weights + entrance_at(LAYERS, FP, HP)
    x = affine(features, at + HP, at, FP, HP)
    return tl.where(x > 0, x, expm1_of(tl.where(x > 0, 0.0, x)))


@jit
def recurrent_of(h, layer, weights, LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):
    """The state's part of the four gates, b + W_hidden h, [BLOCK, HP] each."""
    w = weights + hidden_at(layer, LAYERS, FP, HP)
    b = weights + bias_at(layer, LAYERS, FP, HP)
    enter = affine(h, w, b, HP, HP)
    forget = affine(h, w + HP * HP, b + HP, HP, HP)
    cell = affine(h, w + 2 * HP * HP, b + 2 * HP, HP, HP)
    leave = affine(h, w + 3 * HP * HP, b + 3 * HP, HP, HP)
    return enter, forget, cell, leave


@jit
def gates_of(x, recurrent, w, INPUTS: tl.constexpr, HP: tl.constexpr):
    """The four gates, [BLOCK, HP] each, from a layer's input and the state's part; w points to W_input."""
    enter = sigmoid_of(recurrent[0] + times(x, tl.load(matrix_at(w, INPUTS, HP))))
    forget = sigmoid_of(recurrent[1] + times(x, tl.load(matrix_at(w + INPUTS * HP, INPUTS, HP))))
    cell = tanh_of(recurrent[2] + times(x, tl.load(matrix_at(w + 2 * INPUTS * HP, INPUTS, HP))))
    leave = sigmoid_of(recurrent[3] + times(x, tl.load(matrix_at(w + 3 * INPUTS * HP, INPUTS, HP))))
    return enter, forget, cell, leave


@jit
def head_of(out, weights, LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):
    """u = head . h + bias, [BLOCK]."""
    at = weights + head_at(LAYERS, FP, HP)
    return tl.sum(out * tl.load(at + tl.arange(0, HP))[None, :], axis=1) + tl.load(at + HP)


@jit
def gate_slopes(gates, squashed, c, dh, dc):
    """Slopes of the gates' sums, from those of h and of the new c; c is the one before."""
    enter, forget, cell, leave = gates
    d_enter = dc * cell * enter * (1.0 - enter)
    d_forget = dc * c * forget * (1.0 - forget)
    d_cell = dc * enter * (1.0 - cell * cell)
    d_leave = dh * squashed * leave * (1.0 - leave)
    return d_enter, d_forget, d_cell, d_leave


@jit
def pulled(slopes, w, ROWS: tl.constexpr, HP: tl.constexpr):
    """sum over the gates of slope W^T, [BLOCK, ROWS]."""
    total = times(slopes[0], tl.trans(tl.load(matrix_at(w, ROWS, HP))))
    total += times(slopes[1], tl.trans(tl.load(matrix_at(w + ROWS * HP, ROWS, HP))))
    total += times(slopes[2], tl.trans(tl.load(matrix_at(w + 2 * ROWS * HP, ROWS, HP))))
    return total + times(slopes[3], tl.trans(tl.load(matrix_at(w + 3 * ROWS * HP, ROWS, HP))))


@jit
def add_products(sums, x, slopes):
    """sums + x^T slope of every gate."""
    across = tl.trans(x)
    first, second = sums[0] + times(across, slopes[0]), sums[1] + times(across, slopes[1])
    return first, second, sums[2] + times(across, slopes[2]), sums[3] + times(across, slopes[3])


@jit
def add_sums(sums, slopes):
    first, second = sums[0] + tl.sum(slopes[0], axis=0), sums[1] + tl.sum(slopes[1], axis=0)
    return first, second, sums[2] + tl.sum(slopes[2], axis=0), sums[3] + tl.sum(slopes[3], axis=0)


@jit
def add_to(pointers, value):
    tl.store(pointers, tl.load(pointers) + value)
