"""Sphinx configuration; ``make docs`` builds with warnings as errors."""

from __future__ import annotations

import re
from typing import Any

import shmtable

project = "shmtable"
author = "shmtable maintainers"
copyright = "2026, shmtable maintainers"  # noqa: A001 - Sphinx's name
version = release = shmtable.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The frameworks are not needed to read what the modules for them say.
autodoc_mock_imports = [
    "gymnasium",
    "h5py",
    "minari",
    "stable_baselines3",
    "tensordict",
    "torchrl",
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
# Napoleon's sections stand for the attributes; autodoc need not list them a second time.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"shmtable {release}"
html_show_sphinx = False


def _shapes_as_code(
    app: Any, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Docstrings write shapes as [B, *shape]; to the markup, a star begins emphasis."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        parts[::2] = [re.sub(r"\[[^][`]*\*[^][`]*\]", r"``\g<0>``", part) for part in parts[::2]]
        lines[number] = "".join(parts)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _shapes_as_code)
