"""The compiled heart of P(best): panel quadrature over independent Beta posteriors, row by row.

Imported only where it runs, so that `--help` never pays for the compiler.

In logit space u = log(x / (1 - x)) a Beta(a, b) has the density c exp(a u - (a + b) log(1 + e^u)): smooth,
log-concave, with a mode at log(a / b) and exponential tails, whatever a and b. P(arm i is best) is the
integral of f_i times the product of the other arms' distribution functions. Panels run from the right end,
where every survival function is zero, leftwards to the point below which no arm can be best; on each panel
the survival functions come from integrating the same nodes, so no incomplete beta function is needed.
Logarithms are always taken relative to a mode: nothing of the size of lgamma(1e7) is ever subtracted.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

NODES = 10
"""Gauss-Legendre nodes a panel."""
WIDTH = 2.5
"""Panel width in local standard deviations; with 10 nodes the error stays below 1e-8 for 20 arms."""
DEPTH = 25.0
"""A posterior ends where its density is e^-25 of the mode's; the mass beyond is about 1e-11."""


def _rule(n):
    """Nodes and weights on [0, 1], and A with A[i, j] = integral from node i to 1 of the j-th Lagrange basis."""
    t, w = np.polynomial.legendre.leggauss(n)
    # l_j(x) = sum_m (2m+1)/2 w_j P_m(t_j) P_m(x), and the integral of P_m is (P_{m+1} - P_{m-1}) / (2m+1).
    p = np.polynomial.legendre.legvander(t, n)
    tail = np.empty((n, n))
    tail[:, 0] = 1 - t
    for m in range(1, n):
        tail[:, m] = (p[:, m - 1] - p[:, m + 1]) / (2 * m + 1)
    coef = (np.arange(n) + 0.5) * w[:, None] * p[:, :n]
    return (t + 1) / 2, w / 2, tail @ coef.T / 2


T, W, A = _rule(NODES)


@njit(cache=True, nogil=True)
def _log_mix(d, x, y):
    """log(y + x e^d) for x + y = 1, accurate near d = 0 and without overflow."""
    if d <= 0.0:
        s = x * math.expm1(d)
        return math.log1p(s) if s > -0.5 else math.log(y + x * math.exp(d))
    s = y * math.expm1(-d)
    return d + (math.log1p(s) if s > -0.5 else math.log(x + y * math.exp(-d)))


@njit(cache=True, nogil=True)
def _stirling(x):
    """lgamma(x) less Stirling's formula: what is left is small, so differences keep all digits."""
    if x < 12.0:
        return math.lgamma(x) - ((x - 0.5) * math.log(x) - x + 0.9189385332046727)
    z = 1.0 / (x * x)
    return (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z * (1 / 1680 - z / 1188)))) / x


@njit(cache=True, nogil=True)
def _end(a, b, sign):
    """Distance from the mode to where the log density has fallen by DEPTH (sign -1 left, 1 right), and the
    slope there. Newton on a concave function: after one step every iterate lies outside the root."""
    n, x, y = a + b, a / (a + b), b / (a + b)
    d = sign * math.sqrt(2 * DEPTH * n / (a * b))
    slope = 1.0
    for _ in range(6):
        drop = a * d - n * _log_mix(d, x, y) + DEPTH
        at = x / (x + y * math.exp(-d)) if d > 0 else x * math.exp(d) / (y + x * math.exp(d))
        slope = a - n * at
        d -= drop / slope
        if abs(drop) < 0.01:
            break
    return d, abs(slope)


@njit(cache=True, nogil=True)
def _step(u, low, n, cap):
    """A panel width leftwards of u that the node rule resolves: WIDTH local standard deviations of the
    sharpest arm (n = the largest a + b), bounded by `cap` and by the distance to the density's poles."""
    h = min(cap, u - low)
    for _ in range(200):
        left = u - h
        near = 0.0 if left <= 0.0 <= u else min(abs(left), abs(u))
        e = math.exp(-near)
        if h <= 0.7 * math.sqrt(near * near + 9.87) and h * h * n * e <= WIDTH * WIDTH * (1 + e) * (1 + e):
            break
        h *= 0.8
    return h


@njit(cache=True, nogil=True)
def _panel(u, h, ref, x, y, arms, k, par, surv, f, cdf):
    """Densities and distribution functions of arms[:k] at the nodes of [u - h, u]; moves `surv` to u - h."""
    d, ell = np.empty(NODES), np.empty(NODES)
    for q in range(NODES):
        d[q] = u - h + h * T[q] - ref
        ell[q] = _log_mix(d[q], x, y)
    for m in range(k):
        j = arms[m]
        a, n, c = par[j, 0], par[j, 1], par[j, 2]
        total = 0.0
        for q in range(NODES):
            f[m, q] = h * math.exp(min(c + a * d[q] - n * ell[q], 700.0))
            total += W[q] * f[m, q]
        for q in range(NODES):
            s = 0.0
            for r in range(NODES):
                s += A[q, r] * f[m, r]
            cdf[m, q] = 1.0 - surv[m] - s
        surv[m] += total


@njit(cache=True, nogil=True)
def _gather(arms, k, f, cdf, before, out):
    """Adds to `out` the panel's integrals of f_i times the other arms' distribution functions."""
    for q in range(NODES):
        left = W[q]
        for m in range(k):
            before[m] = left
            left *= cdf[m, q]
        right = 1.0
        for m in range(k - 1, -1, -1):
            out[arms[m]] += before[m] * right * f[m, q]
            right *= cdf[m, q]


@njit(cache=True, nogil=True)
def _prepare(alpha, beta, live, par, high):
    """Fills par = (a, a + b, log density at the mode, mode, panel cap) and the right ends; returns the left
    end of the integral and the arm with the sharpest posterior."""
    low, sharp = -np.inf, -1
    for j in range(alpha.size):
        high[j] = -np.inf
        if not live[j]:
            continue
        a, b = alpha[j], beta[j]
        n, mode = a + b, math.log(a / b)
        left, slope_left = _end(a, b, -1.0)
        right, slope_right = _end(a, b, 1.0)
        peak = 0.5 * math.log(a * (b / n) / (2 * math.pi)) + _stirling(n) - _stirling(a) - _stirling(b)
        par[j, 0], par[j, 1], par[j, 2], par[j, 3] = a, n, peak, mode
        par[j, 4] = max(WIDTH * math.sqrt(n / (a * b)), 6.0 / max(slope_left, slope_right))
        high[j] = mode + right
        low = max(low, mode + left)
    for j in range(alpha.size):
        if live[j] and high[j] > low and (sharp < 0 or par[j, 1] > par[sharp, 1]):
            sharp = j
    return low, sharp


@njit(cache=True, nogil=True)
def _descending(v):
    """Indices that sort v from large to small (insertion: few arms, and quicker to compile than argsort)."""
    order = np.empty(v.size, np.int64)
    for j in range(v.size):
        i = j
        while i > 0 and v[order[i - 1]] < v[j]:
            order[i] = order[i - 1]
            i -= 1
        order[i] = j
    return order


@njit(cache=True, nogil=True)
def _row(alpha, beta, live, out):
    """P(best) of one row into `out` (K,), not normalised; dead arms 0."""
    K = alpha.size
    par, high = np.empty((K, 5)), np.empty(K)
    out[:] = 0.0
    low, sharp = _prepare(alpha, beta, live, par, high)
    if sharp < 0:
        return
    ref, x = par[sharp, 3], alpha[sharp] / (alpha[sharp] + beta[sharp])
    y = beta[sharp] / (alpha[sharp] + beta[sharp])
    for j in range(K):
        if high[j] > low:
            d = ref - par[j, 3]
            n = par[j, 1]
            par[j, 2] += par[j, 0] * d - n * _log_mix(d, alpha[j] / n, beta[j] / n)
    order = _descending(high)
    arms, surv = np.empty(K, np.int64), np.zeros(K)
    f, cdf, before = np.empty((K, NODES)), np.empty((K, NODES)), np.empty(K)
    u, k, n, cap = high[order[0]], 0, 0.0, np.inf
    while u > low:
        while k < K and high[order[k]] >= u:
            j = order[k]
            arms[k] = j
            n, cap = max(n, par[j, 1]), min(cap, par[j, 4])
            k += 1
        stop = max(low, high[order[k]]) if k < K else low
        h = _step(u, stop, n, cap)
        _panel(u, h, ref, x, y, arms, k, par, surv, f, cdf)
        _gather(arms, k, f, cdf, before, out)
        # The last panel ends exactly on `stop`: otherwise an arm could start one rounding error late.
        u = stop if h == u - stop else u - h


@njit(cache=True, nogil=True)
def best_rows(alpha, beta, live, out):
    """P(best) for every row of (N, K) arrays into `out` (N, K), not normalised."""
    for i in range(alpha.shape[0]):
        _row(alpha[i], beta[i], live[i], out[i])


@njit(cache=True, nogil=True)
def pick(edges, shares, rep, segment, u, arm, propensity):
    """The arm whose stretch of the cumulated shares (R, C, K) each u falls into, and its share."""
    K = edges.shape[2]
    for i in range(len(u)):
        row, k = edges[rep[i], segment[i]], 0
        while k < K - 1 and u[i] >= row[k]:
            k += 1
        arm[i] = k
        propensity[i] = shares[rep[i], segment[i], k]


@njit(cache=True, nogil=True)
def draw_beta(n, s, alpha, beta, live, rng, arm):
    """Into `arm` (R, C) the live treatment arm with the largest draw of Beta(alpha + s, beta + n - s); arrays
    (R, C, K)."""
    R, C, K = n.shape
    for r in range(R):
        for c in range(C):
            best, at = -1.0, 0
            for k in range(1, K):
                if live[r, c, k]:
                    x = rng.beta(alpha + s[r, c, k], beta + max(n[r, c, k] - s[r, c, k], 0.0))
                    if x > best:
                        best, at = x, k
            arm[r, c] = at
