"""Identities for sequences that nobody names."""

from __future__ import annotations

import secrets


def new_identity() -> int:
    """An identity that nobody else has: 62 random bits, the same in no two processes."""
    return secrets.randbits(62)
