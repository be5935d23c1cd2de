"""Files changed at random are refused, by an error of ours, and the table stays as it was."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmtable import (
    ArrayMemoryTable,
    FifoEjectionStrategy,
    TableFileError,
    TableSerializationVersion,
    UniformSampleStrategy,
)
from tests.formats.crafting import content_of
from tests.tables import small_columns, small_sequence

EXAMPLES = settings(
    max_examples=400,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class World:
    """A table, what it holds, and a file of each version of another one."""

    def __init__(self, folder: Path) -> None:
        self.table = _table()
        self.table.add_sequence(77, small_sequence(77, 9))
        self.before = content_of(self.table)
        self.file = folder / "mutated.zip"
        source = _table()
        for identity in range(6):
            source.add_sequence(identity, small_sequence(identity, 3 + identity))
        self.sound: dict[TableSerializationVersion, bytes] = {}
        for version in TableSerializationVersion:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                source.store(folder / "sound", version)
            self.sound[version] = (folder / "sound.zip").read_bytes()
        source.close()

    def refuses(self, data: bytes) -> bool:
        """Whether restoring these bytes fails, as it must for the table to be as it was."""
        self.file.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.table.restore(self.file.with_suffix(""))
            except TableFileError as error:
                assert str(self.file) in str(error)
                assert content_of(self.table) == self.before
                return True
        self.table.clear()
        self.table.add_sequence(77, small_sequence(77, 9))
        self.before = content_of(self.table)
        return False


def _table() -> ArrayMemoryTable:
    return ArrayMemoryTable(
        *small_columns(),
        maxlen=200,
        sampler=UniformSampleStrategy(),
        ejector=FifoEjectionStrategy(),
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = World(tmp_path_factory.mktemp("mutations"))
    yield made
    assert made.table.check() == []
    made.table.close()


VERSIONS = st.sampled_from(list(TableSerializationVersion))


def test_unchanged_files_are_restored(world: World) -> None:
    assert [world.refuses(data) for data in world.sound.values()] == [False, False]


@EXAMPLES
@given(VERSIONS, st.data())
def test_changed_bytes(
    world: World, version: TableSerializationVersion, data: st.DataObject
) -> None:
    sound = world.sound[version]
    mutated = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        place = data.draw(st.integers(0, len(sound) - 1), label="place")
        mutated[place] = data.draw(st.integers(0, 255), label="byte")
    # Dates, attributes and the holes between members mean nothing and may be anything.
    if mutated != sound and not world.refuses(bytes(mutated)):
        assert _meaning(bytes(mutated)) == _meaning(sound)


@EXAMPLES
@given(VERSIONS, st.data())
def test_cut_or_extended(
    world: World, version: TableSerializationVersion, data: st.DataObject
) -> None:
    sound = world.sound[version]
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(sound))] * 2), label="cut"))
    insert = data.draw(st.binary(max_size=20), label="insert")
    mutated = sound[:begin] + insert + sound[end:]
    if mutated != sound and not world.refuses(mutated):
        assert _meaning(mutated) == _meaning(sound)


@EXAMPLES
@given(VERSIONS, st.data())
def test_members_changed_and_their_checksums_too(
    world: World, version: TableSerializationVersion, data: st.DataObject
) -> None:
    """What an archive's own checks cannot find: refused, or a table that is sound in itself."""
    content = _meaning(world.sound[version])
    name = data.draw(st.sampled_from(sorted(content)), label="member")
    mutated = bytearray(content[name])
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        kind = data.draw(st.sampled_from(["byte", "cut", "insert"]), label="kind")
        place = data.draw(st.integers(0, max(len(mutated) - 1, 0)), label="place")
        if kind == "byte" and mutated:
            mutated[place] = data.draw(st.integers(0, 255), label="byte")
        elif kind == "cut":
            del mutated[place:]
        else:
            mutated[place:place] = data.draw(st.binary(max_size=9), label="insert")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, sound in content.items():
            archive.writestr(member, bytes(mutated) if member == name else sound)
    world.refuses(file.getvalue())
    assert world.table.check() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@EXAMPLES
@given(st.data())
def test_configurations_of_other_types(world: World, data: st.DataObject) -> None:
    content = _meaning(world.sound[TableSerializationVersion.V1])
    member = data.draw(st.sampled_from(["configuration.json", "shmtable.json"]), label="member")
    found = json.loads(content[member])
    key = data.draw(st.sampled_from(sorted(found)), label="key")
    target: Any = found
    while isinstance(target[key], (list, dict)) and target[key] and data.draw(st.booleans()):
        target = target[key]
        keys = sorted(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys), label="inner key")
    target[key] = data.draw(JSON, label="value")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, sound in content.items():
            archive.writestr(name, json.dumps(found) if name == member else sound)
    world.refuses(file.getvalue())
    assert world.table.check() == []


def _meaning(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
