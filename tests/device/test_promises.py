"""What is promised of a device, on its stand-in: so that the tests themselves are known to work."""

from __future__ import annotations

import pytest

from tests.device import backends
from tests.device.places import Place, StandIn
from tests.device.promises import *  # noqa: F403


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Place:
    """With little room."""
    monkeypatch.setattr(backends, "ROOM", 1 << 24)
    return StandIn()
