"""Compiled: P(best) of independent normal posteriors, and the posterior of linear models.

Imported only where it runs, as `kernel` is, whose node rule it shares.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from justai_sim.bandit.kernel import NODES, T, W

FAR = 5.6
"""Standard deviations beyond which a normal has about 1e-8."""
WIDTH = 3.0
"""Panel width in standard deviations of the sharpest arm there; up to 200 arms the error stays below 3e-7."""
SPENT = 1e-9
"""A row is done where the chance that all arms lie further left has fallen to this."""
GRID, REACH, TERMS = 16, 8.0, 7


def _normal_table():
    """Taylor coefficients of the standard normal distribution function at -REACH, ..., REACH in steps of 1 / GRID: half
    a step away the first term left out is below 1e-13."""
    z = np.arange(-REACH * GRID, REACH * GRID + 1) / GRID
    hermite = [np.ones_like(z), z]
    for k in range(1, TERMS):
        hermite.append(z * hermite[k] - k * hermite[k - 1])
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    out = np.empty((len(z), TERMS))
    out[:, 0] = [0.5 * math.erfc(-x / math.sqrt(2)) for x in z]
    for k in range(1, TERMS):
        out[:, k] = (-1) ** (k - 1) * hermite[k - 1] * density / math.factorial(k)
    return out


NORMAL = _normal_table()


@njit(cache=True, nogil=True, fastmath={"contract"})
def _normal(z):
    """Distribution function and density of the standard normal."""
    if z >= REACH or z <= -REACH:
        return (1.0 if z > 0 else 0.0), 0.0
    g = int(z * GRID + (REACH * GRID + 0.5))
    d = z - (g * (1.0 / GRID) - REACH)
    c1, c2, c3 = NORMAL[g, 1], NORMAL[g, 2], NORMAL[g, 3]
    c4, c5, c6 = NORMAL[g, 4], NORMAL[g, 5], NORMAL[g, 6]
    p = NORMAL[g, 0] + d * (c1 + d * (c2 + d * (c3 + d * (c4 + d * (c5 + d * c6)))))
    return p, c1 + d * (2 * c2 + d * (3 * c3 + d * (4 * c4 + d * (5 * c5 + d * 6 * c6))))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _relevant(mean, sd, live, arms):
    """The arms that can be the best into `arms`, how many they are, and the ends of what is to be integrated."""
    low, top, count = -np.inf, -np.inf, 0
    for k in range(mean.size):
        if live[k]:
            low, top = max(low, mean[k] - FAR * sd[k]), max(top, mean[k] + FAR * sd[k])
    for k in range(mean.size):
        if live[k] and mean[k] + FAR * sd[k] > low:
            arms[count] = k
            count += 1
    return count, low, top


@njit(cache=True, nogil=True, fastmath={"contract"})
def _width(u, low, mean, sd, arms):
    """A panel to the left of u that the node rule resolves: WIDTH of the smallest spread of an arm that lives there."""
    h = u - low
    for k in arms:
        if u > mean[k] - FAR * sd[k]:
            h = min(h, max(WIDTH * sd[k], u - mean[k] - FAR * sd[k]))
    return h


@njit(cache=True, nogil=True, fastmath={"contract"})
def best_normal_rows(mean, sd, live, out):
    """P(best) of independent normals for every row of (N, K) arrays into `out`, not normalised; dead arms 0.

    From the right end leftwards, as for Beta posteriors, until the chance that all arms lie further left is spent.
    """
    N, K = mean.shape
    cdf, pdf, before, arms = np.empty(K), np.empty(K), np.empty(K), np.empty(K, np.int64)
    inverse = np.empty(K)
    for i in range(N):
        out[i] = 0.0
        count, low, u = _relevant(mean[i], sd[i], live[i], arms)
        for a in range(count):
            inverse[a] = 1.0 / sd[i, arms[a]]
        left = 1.0
        while u > low and left > SPENT:
            h = _width(u, low, mean[i], sd[i], arms[:count])
            if u - h == u:
                break
            for q in range(NODES - 1, -1, -1):
                x, mass = u - h + h * T[q], h * W[q]
                for a in range(count):
                    cdf[a], pdf[a] = _normal((x - mean[i, arms[a]]) * inverse[a])
                    before[a] = mass * inverse[a]
                    mass *= cdf[a]
                left = 1.0
                for a in range(count - 1, -1, -1):
                    out[i, arms[a]] += before[a] * left * pdf[a]
                    left *= cdf[a]
            u -= h


@njit(cache=True, nogil=True, fastmath={"contract"})
def _factor(s):
    """The lower triangle of a positive definite matrix, in place: row j becomes column j of the upper triangular R with
    R R' = the matrix. Two columns at a time, which halves the traffic to memory."""
    j = s.shape[0] - 1
    while j >= 0:
        one, p = 1.0 / math.sqrt(s[j, j]), j - 1
        for q in range(j + 1):
            s[j, q] *= one
        if p >= 0:
            for q in range(j):
                s[p, q] -= s[j, p] * s[j, q]
            one = 1.0 / math.sqrt(s[p, p])
            for q in range(j):
                s[p, q] *= one
            for i in range(p):
                f, g = s[j, i], s[p, i]
                for q in range(i + 1):
                    s[i, q] -= f * s[j, q] + g * s[p, q]
        j -= 2


@njit(cache=True, nogil=True, fastmath={"contract"})
def _solve(s, u, w):
    """R^-1 u and R^-1 w in place, R from `_factor`; column c of w (m, C) is zero below row c and stays so."""
    C = w.shape[1]
    j = s.shape[0] - 1
    while j >= 0:
        p, one = j - 1, 1.0 / s[j, j]
        u[j] *= one
        for c in range(j, C):
            w[j, c] *= one
        if p >= 0:
            f, one = s[j, p], 1.0 / s[p, p]
            u[p] = (u[p] - f * u[j]) * one
            w[p, p] *= one
            for c in range(j, C):
                w[p, c] = (w[p, c] - f * w[j, c]) * one
            for q in range(p):
                f, g = s[j, q], s[p, q]
                u[q] -= f * u[j] + g * u[p]
                w[q, p] -= g * w[p, p]
                for c in range(j, C):
                    w[q, c] -= f * w[j, c] + g * w[p, c]
        j -= 2


@njit(cache=True, nogil=True, fastmath={"contract"})
def linear_scores(basis, n, b, ridge, score, wide):
    """Posterior of t'w, w ~ N(0, I / ridge), after n outcomes of spread 1 whose weighted sum is b, at each row t of
    `basis` (1 or K, C, m), lower trapezoidal: means, variances into `score`, `wide` (R, C, K). Arm 0, the control,
    has no model: 0 and 1."""
    R, C, K = n.shape
    m = basis.shape[2]
    s, w, u = np.empty((m, m)), np.empty((m, C)), np.empty(m)
    for r in range(R):
        score[r, :, 0], wide[r, :, 0] = 0.0, 1.0
        for k in range(1, K):
            t = basis[k if basis.shape[0] > 1 else 0]
            s[:], w[:], u[:] = 0.0, 0.0, 0.0
            for i in range(m):
                s[i, i] = ridge
            for c in range(C):
                for i in range(min(c + 1, m)):
                    w[i, c] = t[c, i]
                    u[i] += b[r, c, k] * t[c, i]
            for c in range(0, C, 2):
                d = min(c + 1, C - 1)  # its row is as long or longer
                more = n[r, d, k] if d > c else 0.0
                for i in range(min(d + 1, m)):
                    f, g = n[r, c, k] * t[c, i], more * t[d, i]
                    for q in range(i + 1):
                        s[i, q] += f * t[c, q] + g * t[d, q]
            _factor(s)
            _solve(s, u, w)
            for c in range(C):
                score[r, c, k] = 0.0
                wide[r, c, k] = 0.0
            for j in range(m):
                for c in range(j, C):
                    score[r, c, k] += w[j, c] * u[j]
                    wide[r, c, k] += w[j, c] * w[j, c]
