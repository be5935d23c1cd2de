"""Which columns lie side by side."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shmtable.columns import DTYPES, Column, Schema
from shmtable.columns.groups import Place, places_of


def places(*columns: Column, ahead: tuple[str, ...] = ()) -> dict[str, Place]:
    return places_of(columns, {column.name: int(column.name in ahead) for column in columns})


def test_small_ones_together_the_widest_elements_first() -> None:
    found = places(
        Column("done", (), "bool"),
        Column("obs", (17,), "float32"),
        Column("id", (), "int64"),
        Column("image", (84, 84), "uint8"),
    )
    assert found == {
        "done": Place("id", 76, 80, False),
        "obs": Place("id", 8, 80, False),
        "id": Place("id", 0, 80, False),
        "image": Place("image", 0, 7056, True),
    }


def test_what_is_read_ahead_brings_the_others_only_if_they_are_less() -> None:
    obs, action, reward = Column("o", (8,), float), Column("a", (2,), float), Column("r", (), float)
    together = places(obs, action, reward, ahead=("o",))
    assert {place.region for place in together.values()} == {"o"}
    obs = Column("o", (1,), float)
    apart = places(obs, action, reward, ahead=("o",))
    assert apart["o"] == Place("o", 0, obs.row_bytes, True)
    assert apart["a"].region == apart["r"].region == "a"


def test_not_for_much_padding() -> None:
    assert places(Column("x", (), "float64"), Column("y", (), "bool")) == {
        "x": Place("x", 0, 8, True),
        "y": Place("y", 0, 1, True),
    }
    found = places(Column("x", (2,), "int64"), Column("y", (), "int64"), Column("z", (), "bool"))
    assert [place.apart for place in found.values()] == [False, False, True]


def test_what_is_read_once_per_window_stays_alone() -> None:
    found = places(
        Column("state", (4,), "float32", first_only=True),
        Column("x", (), "float32"),
        Column("y", (), "float32"),
    )
    assert [place.apart for place in found.values()] == [True, False, False]


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(DTYPES)), st.integers(1, 300), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    )
)
def test_nothing_overlaps_and_all_is_aligned(kinds: list[tuple[str, int, int]]) -> None:
    columns = [Column(f"c{i}", (size,), dtype) for i, (dtype, size, _) in enumerate(kinds)]
    ahead = {column.name: kind[2] for column, kind in zip(columns, kinds, strict=True)}
    found = places_of(columns, ahead)
    assert list(found) == [column.name for column in columns]
    taken: dict[str, set[int]] = {}
    for column in columns:
        place = found[column.name]
        item = column.dtype.itemsize
        assert place.offset % item == place.stride % item == 0
        assert place.offset + column.row_bytes <= place.stride
        own = set(range(place.offset, place.offset + column.row_bytes))
        assert not own & taken.setdefault(place.region, set())
        taken[place.region] |= own
        assert found[place.region].stride == place.stride
    for name, used in taken.items():
        assert found[name].stride - len(used) <= found[name].stride / 8


def test_regions_of_a_schema() -> None:
    schema = Schema.build(
        [Column("x", (3,), "int16"), Column("y", (), "int16"), Column("z", (400,), "int8")], "x"
    )
    assert schema.regions == {"x": 8, "z": 400}
    assert schema.row_bytes == 408
