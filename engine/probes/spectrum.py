"""The Hessian at theta: its top eigenpair by Lanczos, its trace, and the maxima of the quadratic model in a ball.

Shape letters: B optimizees, K Lanczos vectors, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.base.flat import unit
from engine.probes.ascent import Tick, nothing

FEWEST = 10  # Lanczos steps before convergence is believed: a start may hardly hold the top eigenvector
OFTEN = 60  # up to so many steps, convergence is looked for after each; later that would cost more than the steps

HVP = Callable[[Tensor], Tensor]
"""B vectors, [B, P], to the Hessians of B optimizees times them."""


@dataclass
class Krylov:
    """What Lanczos learned about one Hessian H: H q_j = beta_{j-1} q_{j-1} + alpha_j q_j + beta_j q_{j+1}."""

    basis: Tensor  # [K + 1, P], orthonormal; the last one is zero where the space is exhausted
    alpha: Tensor  # [K]
    beta: Tensor  # [K]

    def matrix(self) -> Tensor:
        """H q_1 ... H q_K in coordinates of the basis, [K, K + 1]; its first K columns are the tridiagonal matrix."""
        matrix = self.alpha.new_zeros(len(self.alpha), len(self.alpha) + 1)
        matrix.diagonal().copy_(self.alpha)
        matrix.diagonal(1).copy_(self.beta)
        matrix[:, :-1].diagonal(-1).copy_(self.beta[:-1])
        return matrix

    def top(self) -> tuple[Tensor, Tensor]:
        """Largest eigenvalue, [], and its unit eigenvector, [P]; NaN where the Hessian is not finite."""
        matrix = self.matrix()[:, :-1]
        if not matrix.isfinite().all():
            return matrix.new_tensor(torch.nan), self.basis[0]
        values, vectors = torch.linalg.eigh(matrix)
        return values[-1], unit(vectors[:, -1] @ self.basis[:-1])


def lanczos(hvp: HVP, start: Tensor, iterations: int, tick: Tick = nothing) -> list[Krylov]:
    """Lanczos with full reorthogonalisation from unit vectors, [B, P], until the top eigenpairs stand or are exact.

    An optimizee's result does not depend on how long its neighbours go on.
    """
    count, size = start.shape
    steps = max(1, min(iterations, size))
    eps = torch.finfo(start.dtype).eps
    basis = start.new_empty(steps + 1, count, size)  # filled in as they come: they may be gigabytes
    basis[0] = start
    alpha, beta = start.new_empty(0, count), start.new_empty(0, count)
    done: dict[int, Krylov] = {}
    for step in range(1, steps + 1):
        tick()
        vectors = basis[:step]
        product = hvp(vectors[-1]).detach()
        alpha = torch.cat([alpha, (product * vectors[-1]).sum(-1)[None]])
        for _ in range(2):  # once is not enough in floating point
            product = product - torch.einsum("kb,kbp->bp", torch.einsum("kbp,bp->kb", vectors, product), vectors)
        length = product.norm(dim=-1)
        exhausted = ~(length > 100 * eps * torch.cat([alpha, beta]).abs().amax(0))
        length = torch.where(exhausted, 0.0, length)
        beta = torch.cat([beta, length[None]])
        basis[step] = unit(torch.where(exhausted[:, None], 0.0, product))
        for b in range(count):
            if b not in done:
                krylov = Krylov(basis[: step + 1, b], alpha[:, b], beta[:, b])
                looks = FEWEST <= step <= OFTEN or step % 10 == 0
                if step == steps or exhausted[b] or (looks and _converged(krylov)):
                    done[b] = krylov
        if len(done) == count:
            break
    return [done[b] for b in range(count)]


def hutchinson(hvp: HVP, theta: Tensor, samples: int, seed: int, tick: Tick = nothing) -> Tensor:
    """Mean of z'Hz over vectors z of random signs, [B]: the trace, and exact where the Hessian is diagonal."""
    signs = randn(samples, theta, seed + 2).sign_()
    total = torch.zeros_like(theta[:, 0])
    for sign in signs:
        tick()
        total += (hvp(sign.expand_as(theta)).detach() * sign).sum(-1)
    return total / samples


def model_peaks(krylov: Krylov, gradient: Tensor, curved: Tensor, radii: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Where the quadratic model at theta has its largest loss and its largest gradient norm, [radii, P] each.

    In the span of the Lanczos vectors and the gradient: exact for a quadratic loss of few parameters, and a start that
    costs nothing for any other. `gradient` is g and `curved` is Hg/|g|, [P] each.
    """
    basis, matrix = krylov.basis, krylov.matrix()
    if not all(bool(part.isfinite().all()) for part in (matrix, gradient, curved)):
        return (basis.new_zeros(len(radii), basis.shape[1]),) * 2
    ahead = unit(gradient)
    inside = basis[:-1] @ ahead
    beside = ahead - inside @ basis[:-1]
    beside = beside - (basis[:-1] @ beside) @ basis[:-1]
    length = beside.norm()
    extra, image = basis.new_empty(2, 0, basis.shape[1])
    if length > 1e-3:  # less would be mostly rounding
        extra = beside[None] / length
        image = ((curved - inside @ matrix @ basis) / length)[None]

    def inner(vector: Tensor) -> Tensor:
        """Products with the span's basis: the Lanczos vectors, which are not copied, and what the gradient adds."""
        return torch.cat([basis[:-1] @ vector, extra @ vector])

    def combined(coefficients: Tensor) -> Tensor:
        return coefficients[:, : len(basis) - 1] @ basis[:-1] + coefficients[:, len(basis) - 1 :] @ extra

    edge = matrix @ (basis @ image.T)  # products of the Lanczos vectors' images with the gradient's
    square = torch.cat([torch.cat([matrix @ matrix.T, edge], 1), torch.cat([edge.T, image @ image.T], 1)])
    across = basis[:-1] @ image.T
    corner = extra @ image.T
    hessian = torch.cat([torch.cat([matrix[:, :-1], across], 1), torch.cat([across.T, corner], 1)])
    steepest = combined(ball_maximum(square, gradient.norm() * inner(curved), radii))
    return combined(ball_maximum(hessian, inner(gradient), radii)), steepest


def ball_maximum(matrix: Tensor, slope: Tensor, radii: Sequence[float]) -> Tensor:
    """argmax of b'y + y'My/2 over the L2 ball, [radii, n], for symmetric M, [n, n], and b, [n].

    y = (mu - M)^-1 b with mu >= 0 above the top eigenvalue and |y| = radius, by bisection; in the hard case, where b
    lacks the top eigenvector, the rest of the length goes along that. Computed in float64.
    """
    values, vectors = torch.linalg.eigh(matrix.double())
    weight = vectors.T @ slope.double()
    lowest = values[-1].clamp_min(0.0)
    below = lowest - values  # [n]
    radius = torch.tensor(list(radii), dtype=torch.float64, device=matrix.device)[:, None]
    low, high = torch.zeros_like(radius), weight.norm() / radius.clamp_min(1e-300)
    for _ in range(100):
        middle = (low + high) / 2
        outside = (weight / (middle + below)).nan_to_num(0.0).norm(dim=-1, keepdim=True) > radius
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    solution = (weight / (high + below)).nan_to_num(0.0, 0.0, 0.0)  # [radii, n]
    if values[-1] >= 0:  # else the maximum may lie inside
        remaining = (radius[:, 0] ** 2 - solution[:, :-1].square().sum(-1)).clamp_min(0.0).sqrt()
        solution[:, -1] = torch.where(weight[-1] < 0, -remaining, remaining)
    return (solution @ vectors.T).to(matrix.dtype)


def randn(count: int, theta: Tensor, seed: int) -> Tensor:
    """Normal numbers, [count, P], the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, theta.shape[-1], generator=generator, dtype=torch.float64, device="cpu").to(theta)


def _converged(krylov: Krylov) -> bool:
    """Whether the residual of the top eigenpair is so small that its eigenvalue, off by its square, is exact."""
    matrix = krylov.matrix()[:, :-1]
    if not matrix.isfinite().all():
        return True
    values, vectors = torch.linalg.eigh(matrix)
    residual = krylov.beta[-1] * vectors[-1, -1].abs()
    return bool(residual <= min(1e-5, torch.finfo(matrix.dtype).eps ** 0.5) * values.abs().amax())
