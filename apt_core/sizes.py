"""Bytes as people read them. No torch."""

from __future__ import annotations

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def in_words(count: float) -> str:
    """``3.2 GB``, ``12 MB`` or ``0 bytes``; decimal units, one digit after the point under ten."""
    for unit, size in _UNITS:
        if count >= size:
            amount = count / size
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
    return f"{max(0, round(count))} bytes"
