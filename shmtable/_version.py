"""The one place that holds the version; read without importing the package when it is built."""

from __future__ import annotations

__version__ = "0.1.0"
