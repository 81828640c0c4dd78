# mypy: ignore-errors
"""Triton kernels of the coordinate-wise LSTM: an inner step, its pull-back, and the ascent of the smoothness penalty.

A program carries BLOCK coordinates; gates and what follows from them stay in registers.

    state     [2 LAYERS, N, H]    h, then c, layer by layer, as `Network.units`
    features  [N, F]              update and its slope [N]
    weights   flat, padded        places in triton_tiles.py; gradients lie the same way, a line for each program

The plain PyTorch reference is LearnedOptimizer.step with autograd; RecomputeTape runs it on every device.
"""

from __future__ import annotations

try:
    import triton.language as tl
except ImportError:  # as in triton_tiles.py
    tl = None

from engine.kernels.triton_tiles import (
    add_products,
    add_sums,
    add_to,
    bias_at,
    entered_of,
    entrance_at,
    gate_slopes,
    gates_of,
    head_at,
    head_of,
    hidden_at,
    input_at,
    jit,
    load_unit,
    matrix_at,
    pulled,
    recurrent_of,
    store_unit,
    tanh_of,
    times,
)


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
        recurrent = recurrent_of(h, layer, weights, LAYERS, FP, HP)
        gates = gates_of(x, recurrent, weights + input_at(layer, LAYERS, FP, HP), x.shape[1], HP)
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
        gates = gates_of(x, recurrent_of(h, layer, weights, LAYERS, FP, HP), w_input, INPUTS, HP)
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
def run(
    seen, recurrent, cells, weights, FP: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr, ENTRANCE: tl.constexpr
):
    """The step from a feature tile: u, [BLOCK], the first layer's input, and each layer's gates and tanh(c)."""
    first = entered_of(seen, weights, LAYERS, FP, HP) if ENTRANCE else seen
    x, saved = first, ()
    for layer in tl.static_range(LAYERS):
        gates = gates_of(x, recurrent[layer], weights + input_at(layer, LAYERS, FP, HP), x.shape[1], HP)
        squashed = tanh_of(gates[1] * cells[layer] + gates[0] * gates[2])
        x = gates[3] * squashed
        saved = saved + ((gates, squashed),)
    return head_of(x, weights, LAYERS, FP, HP), first, saved


@jit
def pull_to_input(dh, saved, c, w, INPUTS: tl.constexpr, HP: tl.constexpr):
    """From the slope of a layer's h to that of its input."""
    gates, squashed = saved
    dc = dh * gates[3] * (1.0 - squashed * squashed)
    return pulled(gate_slopes(gates, squashed, c, dh, dc), w, INPUTS, HP)


@jit
def uphill_of(
    du, first, saved, cells, weights,
    FP: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr, ENTRANCE: tl.constexpr,
):  # fmt: skip
    """From the slope of u, [BLOCK], to that of the feature tile, [BLOCK, FP]; the state goes nowhere."""
    dx = du[:, None] * tl.load(weights + head_at(LAYERS, FP, HP) + tl.arange(0, HP))[None, :]
    for layer in tl.static_range(LAYERS - 1, 0, -1):
        dx = pull_to_input(dx, saved[layer], cells[layer], weights + input_at(layer, LAYERS, FP, HP), HP, HP)
    dx = pull_to_input(dx, saved[0], cells[0], weights + input_at(0, LAYERS, FP, HP), first.shape[1], HP)
    if ENTRANCE:
        dx = dx * tl.where(first > 0, 1.0, first + 1.0)
        dx = times(dx, tl.trans(tl.load(matrix_at(weights + entrance_at(LAYERS, FP, HP) + HP, FP, HP))))
    return dx


@jit
def ascent(
    weights, features, before, clean, offset, worst, update, coordinates, scale, epsilon, length, steps, free,
    F: tl.constexpr, FP: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, LAYERS: tl.constexpr,
    ENTRANCE: tl.constexpr, SQUASHED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Projected sign ascent of (u(s) - u(s'))^2 from `offset` in the box of half-width epsilon, the state held fixed.

    The first `free` features move. Out: the features `worst`, [N, F], and the update `update`, [N].
    """
    row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    center = load_unit(features, 0, row, coordinates, F, FP)
    moved = load_unit(offset, 0, row, coordinates, F, FP)
    clean_update = tl.load(clean + row, mask=row < coordinates, other=0.0)
    moves = (tl.arange(0, FP) < free)[None, :]
    limit = tl.zeros((BLOCK, FP), center.dtype) + epsilon
    recurrent, cells = (), ()
    for layer in tl.static_range(LAYERS):
        h = load_unit(before, 2 * layer, row, coordinates, H, HP)
        recurrent = recurrent + (recurrent_of(h, layer, weights, LAYERS, FP, HP),)
        cells = cells + (load_unit(before, 2 * layer + 1, row, coordinates, H, HP),)
    for _ in range(steps):
        u, first, saved = run(center + moved, recurrent, cells, weights, FP, HP, LAYERS, ENTRANCE)
        squashed = tanh_of(u) if SQUASHED else u
        du = 2.0 * (scale * squashed - clean_update) * scale
        if SQUASHED:
            du = du * (1.0 - squashed * squashed)
        uphill = uphill_of(du, first, saved, cells, weights, FP, HP, LAYERS, ENTRANCE)
        sign = tl.where(moves & (uphill > 0), 1.0, tl.where(moves & (uphill < 0), -1.0, 0.0))
        moved += length * sign.to(moved.dtype)
        moved = tl.where(moved > limit, limit, tl.where(moved < -limit, -limit, moved))  # NaN stays
    store_unit(worst, center + moved, 0, row, coordinates, F, FP)
    last, entry, rest = run(center + moved, recurrent, cells, weights, FP, HP, LAYERS, ENTRANCE)
    if SQUASHED:
        last = tanh_of(last)
    tl.store(update + row, scale * last, mask=row < coordinates)
