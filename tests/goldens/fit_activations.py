#!/usr/bin/env python3
"""The constants of exp and erf in kernels/ocellus/generic/rowwise.inl, and their errors.

exp: e^r = 1 + r + r^2 P(r) on |r| <= ln2 / 2, P of the least largest relative error by Lawson's iteration.
erf: x P(x^2) / Q(x^2); this script only measures the constants' error in double.
Usage: fit_activations.py
"""
import math
import struct


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def solve(a, b):
    n = len(b)
    m = [row[:] + [b[i]] for i, row in enumerate(a)]
    for i in range(n):
        p = max(range(i, n), key=lambda r: abs(m[r][i]))
        m[i], m[p] = m[p], m[i]
        for r in range(n):
            if r != i:
                f = m[r][i] / m[i][i]
                for c in range(i, n + 1):
                    m[r][c] -= f * m[i][c]
    return [m[i][n] / m[i][i] for i in range(n)]


def fit(first, count, half):
    """c of e^r = (sum of r^i / i!, i < first) + sum c[i] r^(first + i), i < count: least largest relative error."""
    grid = [half * math.cos(math.pi * (i + 0.5) / 200) for i in range(200)]
    fine = [half * (2 * i / 20000 - 1) for i in range(20001)]
    fixed = [1 / math.factorial(i) for i in range(first)]

    def error(c, r):
        return sum(v * r**i for i, v in enumerate(fixed + c)) / math.exp(r) - 1

    weights = [1.0] * len(grid)
    for _ in range(300):  # Lawson's iteration: least squares, weighted by the last error
        rows = [[r ** (first + i) / math.exp(r) for i in range(count)] for r in grid]
        right = [-error([], r) for r in grid]
        a = [[sum(w * x[i] * x[j] for w, x in zip(weights, rows)) for j in range(count)] for i in range(count)]
        c = solve(a, [sum(w * x[i] * y for w, x, y in zip(weights, rows, right)) for i in range(count)])
        weights = [w * abs(error(c, r)) for w, r in zip(weights, grid)]
        total = sum(weights)
        weights = [w / total for w in weights]
    c = [f32(v) for v in c]
    return c, max(abs(error(c, r)) for r in fine)


for first, count in ((2, 5), (2, 4), (2, 3), (1, 3), (0, 4), (2, 2)):
    c, worst = fit(first, count, math.log(2) / 2)
    print(f"exp, degree {first + count - 1}, {first} fixed", [f"{v:.9g}" for v in c], f"relative error {worst:.2g}")

P = [1.12837901, 0.194028677, 0.0532059090, 0.00391694040, 2.87579430e-4, 2.01164094e-6]
Q = [1, 0.505284931, 0.115587645, 0.0152699772, 0.00119808431, 3.78375228e-5]
worst = 0.0
for i in range(40001):
    x = 6 * i / 40000
    t = min(x, 3.95)
    y = t * sum(v * t ** (2 * k) for k, v in enumerate(P)) / sum(v * t ** (2 * k) for k, v in enumerate(Q))
    worst = max(worst, abs(y - math.erf(x)))
print(f"erf, absolute error {worst:.2g}")
