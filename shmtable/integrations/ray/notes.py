"""What a keeper has to know when it was started again; the head of the cluster keeps it.

One text of JSON for each distributed table, in the cluster's own store of keys and values. It has
counts and paths only. A note that is not there, or is none, is as if nothing had been before.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from shmtable.integrations.needed import needed

with needed("ray", extra="ray"):
    from ray.exceptions import RayError
    from ray.experimental import internal_kv

_LOGGER = logging.getLogger("shmtable")
_NAMESPACE = "shmtable"


class Notes:
    """The note of one distributed table.

    Args:
        key: of the table: its name and token.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._text = ""

    def read(self) -> dict[str, Any]:
        """What was written last; empty for nothing."""
        try:
            text = internal_kv._internal_kv_get(self._key, namespace=_NAMESPACE)
            found = json.loads(text) if text else {}
        except (RayError, ValueError) as error:
            _LOGGER.warning("what an earlier keeper knew cannot be read: %s", error)
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, content: dict[str, Any]) -> None:
        """Replace it, if it has changed; the next time, where the head does not answer."""
        text = json.dumps(content)
        if text == self._text:
            return
        try:
            internal_kv._internal_kv_put(self._key, text, overwrite=True, namespace=_NAMESPACE)
            self._text = text
        except RayError as error:
            _LOGGER.warning("what the next keeper has to know cannot be written: %s", error)

    def remove(self) -> None:
        """The table has ended."""
        try:
            internal_kv._internal_kv_del(self._key, namespace=_NAMESPACE)
        except RayError as error:
            _LOGGER.warning("a note of %s stays with the cluster: %s", self._key, error)


def last_file(key: str, name: str) -> str | None:
    """The file that the shard of this name begins with, as noted; None for none."""
    try:
        found = Notes(key).read()["shards"][name]["file"]
    except (KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
