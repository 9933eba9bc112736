"""Figures as people read them: losses, distances, times, ratios."""

from __future__ import annotations

import math


def loss(value: float) -> str:
    if not math.isfinite(value):
        return "nan"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")


def distance(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.0e}".replace("e-0", "e-") if math.isfinite(value) else "nan"


def microseconds(seconds: float) -> str:
    us = seconds * 1e6
    if not math.isfinite(us):
        return "-"
    return f"{us:.1f}" if us < 100 else f"{us:,.0f}"


def ratio(plain_seconds: float, fused_seconds: float) -> str:
    """How many times the plain step takes the fused one's time."""
    if not (math.isfinite(plain_seconds) and fused_seconds > 0):
        return "-"
    return f"{plain_seconds / fused_seconds:.2f}x"
