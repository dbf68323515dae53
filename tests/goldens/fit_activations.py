#!/usr/bin/env python3
"""The constants of exp2, erf and gelu in kernels/ocellus/generic/rowwise.inl, and their errors.

exp2: 2^r = 1 + r P(r) on |r| <= 1/2, P of the least largest relative error by Lawson's iteration.
erf: x P(x^2) / Q(x^2), and Phi(x) = sigmoid(x (a + b x^2 + c x^4)): this script only measures their errors in double.
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


def fit(count):
    """c of 2^r = 1 + sum c[i] r^(1 + i), i < count: least largest relative error on |r| <= 1/2."""
    grid = [0.5 * math.cos(math.pi * (i + 0.5) / 200) for i in range(200)]
    fine = [i / 20000 - 0.5 for i in range(20001)]

    def error(c, r):
        return sum(v * r**i for i, v in enumerate([1.0] + c)) / 2**r - 1

    weights = [1.0] * len(grid)
    for _ in range(300):  # Lawson's iteration: least squares, weighted by the last error
        rows = [[r ** (1 + i) / 2**r for i in range(count)] for r in grid]
        right = [-error([], r) for r in grid]
        a = [[sum(w * x[i] * x[j] for w, x in zip(weights, rows)) for j in range(count)] for i in range(count)]
        c = solve(a, [sum(w * x[i] * y for w, x, y in zip(weights, rows, right)) for i in range(count)])
        weights = [w * abs(error(c, r)) for w, r in zip(weights, grid)]
        total = sum(weights)
        weights = [w / total for w in weights]
    c = [f32(v) for v in c]
    return c, max(abs(error(c, r)) for r in fine)


for degree in (3, 4, 5, 6):
    c, worst = fit(degree)
    print(f"exp2, degree {degree}", [f"{v:.9g}" for v in c], f"relative error {worst:.2g}")

P = [1.12837901, 0.194028677, 0.0532059090, 0.00391694040, 2.87579430e-4, 2.01164094e-6]
Q = [1, 0.505284931, 0.115587645, 0.0152699772, 0.00119808431, 3.78375228e-5]
worst = 0.0
for i in range(40001):
    x = 6 * i / 40000
    t = min(x, 3.95)
    y = t * sum(v * t ** (2 * k) for k, v in enumerate(P)) / sum(v * t ** (2 * k) for k, v in enumerate(Q))
    worst = max(worst, abs(y - math.erf(x)))
print(f"erf, absolute error {worst:.2g}")

worst = 0.0
for i in range(-40000, 40001):
    x = 12 * i / 40000
    z = max(-8.0, min(x, 8.0))
    u = 1.59501577 + 0.0740112945 * z**2 - 7.03033959e-4 * z**4
    worst = max(worst, abs(x / (1 + math.exp(-z * u)) - x / 2 * (1 + math.erf(x / math.sqrt(2)))))
print(f"gelu before bytes, absolute error {worst:.2g}")
