# mypy: allow-untyped-defs
# (what Triton compiles has types of its own)
"""Triton kernels of the coordinate-wise LSTM: an inner step, its pull-back, and the ascent of the smoothness penalty.

A program carries BLOCK coordinates; gates and what follows from them stay in registers. All sizes are padded (units to
HP, features to FP), and padding holds zeros: a padded unit stays 0 and gets no slope.

    state     [2 LAYERS, N, H]    h, then c, layer by layer, as `Network.units`
    features  [N, F]              update and its slope [N]
    weights   flat, padded        see `weights_at`; gradients lie the same way, one line for each program

The plain PyTorch reference is LearnedOptimizer.step with autograd; RecomputeTape runs it on every device.
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
    there = (row < coordinates)[:, None] & (column < COUNT)[None, :]
    at = (unit * coordinates + row)[:, None] * COUNT + column[None, :]  # row is int64
    return tl.load(rows + at, mask=there, other=0.0)


@jit
def store_unit(rows, tile, unit, row, coordinates, COUNT: tl.constexpr, PADDED: tl.constexpr):
    column = tl.arange(0, PADDED)
    there = (row < coordinates)[:, None] & (column < COUNT)[None, :]
    at = (unit * coordinates + row)[:, None] * COUNT + column[None, :]
    tl.store(rows + at, tile, mask=there)


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
def known_of(h, layer, weights, LAYERS: tl.constexpr, FP: tl.constexpr, HP: tl.constexpr):
    """The state's part of the four gates, b + W_hidden h, [BLOCK, HP] each."""
    w = weights + hidden_at(layer, LAYERS, FP, HP)
    b = weights + bias_at(layer, LAYERS, FP, HP)
    enter = affine(h, w, b, HP, HP)
    forget = affine(h, w + HP * HP, b + HP, HP, HP)
    cell = affine(h, w + 2 * HP * HP, b + 2 * HP, HP, HP)
    leave = affine(h, w + 3 * HP * HP, b + 3 * HP, HP, HP)
    return enter, forget, cell, leave


@jit
def gates_of(x, known, w, INPUTS: tl.constexpr, HP: tl.constexpr):
    """The four gates, [BLOCK, HP] each, from a layer's input and the state's part; w points to W_input."""
    enter = sigmoid_of(known[0] + times(x, tl.load(matrix_at(w, INPUTS, HP))))
    forget = sigmoid_of(known[1] + times(x, tl.load(matrix_at(w + INPUTS * HP, INPUTS, HP))))
    cell = tanh_of(known[2] + times(x, tl.load(matrix_at(w + 2 * INPUTS * HP, INPUTS, HP))))
    leave = sigmoid_of(known[3] + times(x, tl.load(matrix_at(w + 3 * INPUTS * HP, INPUTS, HP))))
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


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def forward(
    weights, features, before, after, update, coordinates, scale,
    F: tl.constexpr, FP: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr,
    ENTRANCE: tl.constexpr, SQUASHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One inner step: features and the state `before` to `after` and `update`; one program for each block."""
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    x = load_unit(features, 0, row, coordinates, F, FP)
    if ENTRANCE:
        x = entered_of(x, weights, LAYERS, FP, HP)
    for layer in tl.static_range(LAYERS):
        h = load_unit(before, 2 * layer, row, coordinates, H, HP)
        c = load_unit(before, 2 * layer + 1, row, coordinates, H, HP)
        known = known_of(h, layer, weights, LAYERS, FP, HP)
        gates = gates_of(x, known, weights + input_at(layer, LAYERS, FP, HP), x.shape[1], HP)
        c = gates[1] * c + gates[0] * gates[2]
        x = gates[3] * tanh_of(c)
        store_unit(after, x, 2 * layer, row, coordinates, H, HP)
        store_unit(after, c, 2 * layer + 1, row, coordinates, H, HP)
    u = head_of(x, weights, LAYERS, FP, HP)
    if SQUASHED:
        u = tanh_of(u)
    tl.store(update + row, scale * u, mask=row < coordinates)


@jit
def backward(
    weights, features, before, after, slope, carried, carried_before, through, partial, coordinates, scale, size,
    ALONE: tl.constexpr,
    F: tl.constexpr, FP: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr,
    ENTRANCE: tl.constexpr, SQUASHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One inner step pulled back: the gates anew from the features and the states before and after the step.

    `carried` holds the slopes of the state after the step, `carried_before` gets those of the state before; ALONE: the
    state after goes nowhere, and `carried` is added to the result. `through`, [2, N, H]: slopes on their way from a
    layer to the one below. `partial`, [programs, size]: gradients by the weights, added up by each program over its
    blocks, so in a fixed order.
    """
    mine = partial + tl.program_id(0).to(tl.int64) * size
    for down in tl.static_range(LAYERS):
        pull_layer(
            LAYERS - 1 - down, weights, features, before, after, slope, carried, carried_before, through, mine,
            coordinates, scale, ALONE, F, FP, H, HP, LAYERS, ENTRANCE, SQUASHED, BLOCK,
        )  # fmt: skip
        tl.debug_barrier()  # what this layer wrote to `through` is read by other threads of the program


@jit
def pull_layer(
    layer: tl.constexpr, weights, features, before, after, slope, carried, carried_before, through, mine,
    coordinates, scale, ALONE: tl.constexpr,
    F: tl.constexpr, FP: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr,
    ENTRANCE: tl.constexpr, SQUASHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One layer of `backward`, for all blocks of a program: the sums of its gradients stay in registers."""
    TOP: tl.constexpr = layer == LAYERS - 1
    FIRST: tl.constexpr = layer == 0
    INPUTS: tl.constexpr = FP if (FIRST and not ENTRANCE) else HP
    w_input = weights + input_at(layer, LAYERS, FP, HP)
    w_hidden = weights + hidden_at(layer, LAYERS, FP, HP)
    number = weights.dtype.element_ty
    none, nothing, zero = tl.zeros((INPUTS, HP), number), tl.zeros((HP, HP), number), tl.zeros((HP,), number)
    input_sums, hidden_sums = (none, none, none, none), (nothing, nothing, nothing, nothing)
    bias_sums = (zero, zero, zero, zero)
    entrance_sums, entrance_bias, head_sums = tl.zeros((FP, HP), number), zero, zero
    output_sums = tl.zeros((BLOCK,), number)
    for block in range(tl.program_id(0), tl.cdiv(coordinates, BLOCK), tl.num_programs(0)):
        row = (block * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
        if FIRST:
            seen = load_unit(features, 0, row, coordinates, F, FP)
            x = entered_of(seen, weights, LAYERS, FP, HP) if ENTRANCE else seen
        else:
            x = load_unit(after, 2 * layer - 2, row, coordinates, H, HP)
        h = load_unit(before, 2 * layer, row, coordinates, H, HP)
        c = load_unit(before, 2 * layer + 1, row, coordinates, H, HP)
        gates = gates_of(x, known_of(h, layer, weights, LAYERS, FP, HP), w_input, INPUTS, HP)
        squashed = tanh_of(gates[1] * c + gates[0] * gates[2])
        if TOP:
            out = gates[3] * squashed
            du = scale * tl.load(slope + row, mask=row < coordinates, other=0.0)
            if SQUASHED:
                u = tanh_of(head_of(out, weights, LAYERS, FP, HP))
                du = du * (1.0 - u * u)
            dh = du[:, None] * tl.load(weights + head_at(LAYERS, FP, HP) + tl.arange(0, HP))[None, :]
            head_sums += tl.sum(du[:, None] * out, axis=0)
            output_sums += du
        else:
            dh = load_unit(through, layer % 2, row, coordinates, H, HP)
        if not ALONE:
            dh += load_unit(carried, 2 * layer, row, coordinates, H, HP)
        dc = dh * gates[3] * (1.0 - squashed * squashed)
        if not ALONE:
            dc += load_unit(carried, 2 * layer + 1, row, coordinates, H, HP)
        slopes = gate_slopes(gates, squashed, c, dh, dc)
        dh_before, dc_before = pulled(slopes, w_hidden, HP, HP), dc * gates[1]
        if ALONE:
            dh_before += load_unit(carried, 2 * layer, row, coordinates, H, HP)
            dc_before += load_unit(carried, 2 * layer + 1, row, coordinates, H, HP)
        store_unit(carried_before, dh_before, 2 * layer, row, coordinates, H, HP)
        store_unit(carried_before, dc_before, 2 * layer + 1, row, coordinates, H, HP)
        input_sums, hidden_sums = add_products(input_sums, x, slopes), add_products(hidden_sums, h, slopes)
        bias_sums = add_sums(bias_sums, slopes)
        if not FIRST:
            dx = pulled(slopes, w_input, INPUTS, HP)
            store_unit(through, dx, (layer + 1) % 2, row, coordinates, H, HP)
        elif ENTRANCE:
            dx = pulled(slopes, w_input, INPUTS, HP) * tl.where(x > 0, 1.0, x + 1.0)
            entrance_sums += times(tl.trans(seen), dx)
            entrance_bias += tl.sum(dx, axis=0)
    unit = tl.arange(0, HP)
    for gate in tl.static_range(4):
        add_to(matrix_at(mine + input_at(layer, LAYERS, FP, HP) + gate * INPUTS * HP, INPUTS, HP), input_sums[gate])
        add_to(matrix_at(mine + hidden_at(layer, LAYERS, FP, HP) + gate * HP * HP, HP, HP), hidden_sums[gate])
        add_to(mine + bias_at(layer, LAYERS, FP, HP) + gate * HP + unit, bias_sums[gate])
    if TOP:
        add_to(mine + head_at(LAYERS, FP, HP) + unit, head_sums)
        add_to(mine + head_at(LAYERS, FP, HP) + HP, tl.sum(output_sums, axis=0))
    if FIRST and ENTRANCE:
        add_to(mine + entrance_at(LAYERS, FP, HP) + unit, entrance_bias)
        add_to(matrix_at(mine + entrance_at(LAYERS, FP, HP) + HP, FP, HP), entrance_sums)


@jit
def run(seen, known, cells, weights, FP: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr, ENTRANCE: tl.constexpr):
    """The step from a feature tile: u, [BLOCK], the first layer's input, and each layer's gates and tanh(c)."""
    first = entered_of(seen, weights, LAYERS, FP, HP) if ENTRANCE else seen
    x, kept = first, ()
    for layer in tl.static_range(LAYERS):
        gates = gates_of(x, known[layer], weights + input_at(layer, LAYERS, FP, HP), x.shape[1], HP)
        squashed = tanh_of(gates[1] * cells[layer] + gates[0] * gates[2])
        x = gates[3] * squashed
        kept = kept + ((gates, squashed),)
    return head_of(x, weights, LAYERS, FP, HP), first, kept


@jit
def pull_to_input(dh, kept, c, w, INPUTS: tl.constexpr, HP: tl.constexpr):
    """From the slope of a layer's h to that of its input."""
    gates, squashed = kept
    dc = dh * gates[3] * (1.0 - squashed * squashed)
    return pulled(gate_slopes(gates, squashed, c, dh, dc), w, INPUTS, HP)


@jit
def uphill_of(
    du, first, kept, cells, weights,
    FP: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr, ENTRANCE: tl.constexpr,
):  # fmt: skip
    """From the slope of u, [BLOCK], to that of the feature tile, [BLOCK, FP]; the state goes nowhere."""
    dx = du[:, None] * tl.load(weights + head_at(LAYERS, FP, HP) + tl.arange(0, HP))[None, :]
    for layer in tl.static_range(LAYERS - 1, 0, -1):
        dx = pull_to_input(dx, kept[layer], cells[layer], weights + input_at(layer, LAYERS, FP, HP), HP, HP)
    dx = pull_to_input(dx, kept[0], cells[0], weights + input_at(0, LAYERS, FP, HP), first.shape[1], HP)
    if ENTRANCE:
        dx = dx * tl.where(first > 0, 1.0, first + 1.0)
        dx = times(dx, tl.trans(tl.load(matrix_at(weights + entrance_at(LAYERS, FP, HP) + HP, FP, HP))))
    return dx


@jit
def ascent(
    weights, features, before, clean, offset, found, there, coordinates, scale, epsilon, length, steps, free,
    F: tl.constexpr, FP: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr,
    ENTRANCE: tl.constexpr, SQUASHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Projected sign ascent of (u(s) - u(s'))^2 from `offset` in the box of half-width epsilon, the state held fixed.

    The first `free` features move. Out: the features `found`, [N, F], and the update `there`, [N].
    """
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    center = load_unit(features, 0, row, coordinates, F, FP)
    moved = load_unit(offset, 0, row, coordinates, F, FP)
    wanted = tl.load(clean + row, mask=row < coordinates, other=0.0)
    moves = (tl.arange(0, FP) < free)[None, :]
    limit = tl.zeros((BLOCK, FP), center.dtype) + epsilon
    known, cells = (), ()
    for layer in tl.static_range(LAYERS):
        h = load_unit(before, 2 * layer, row, coordinates, H, HP)
        known = known + (known_of(h, layer, weights, LAYERS, FP, HP),)
        cells = cells + (load_unit(before, 2 * layer + 1, row, coordinates, H, HP),)
    for _ in range(steps):
        u, first, kept = run(center + moved, known, cells, weights, FP, HP, LAYERS, ENTRANCE)
        squashed = tanh_of(u) if SQUASHED else u
        du = 2.0 * (scale * squashed - wanted) * scale
        if SQUASHED:
            du = du * (1.0 - squashed * squashed)
        uphill = uphill_of(du, first, kept, cells, weights, FP, HP, LAYERS, ENTRANCE)
        sign = tl.where(uphill > 0, 1.0, tl.where(uphill < 0, -1.0, 0.0))
        stepped = moved + length * sign.to(moved.dtype)
        stepped = tl.where(stepped > limit, limit, tl.where(stepped < -limit, -limit, stepped))
        moved = tl.where(moves, stepped, moved)
    store_unit(found, center + moved, 0, row, coordinates, F, FP)
    last, entry, rest = run(center + moved, known, cells, weights, FP, HP, LAYERS, ENTRANCE)
    if SQUASHED:
        last = tanh_of(last)
    tl.store(there + row, scale * last, mask=row < coordinates)
