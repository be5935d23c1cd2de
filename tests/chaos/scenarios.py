"""Every sort of call, in the situations that make a difference to it."""

from __future__ import annotations

from shmtable import (
    CoverageSampleStrategy,
    EndAlignedSampleStrategy,
    FifoSampleStrategy,
    LifoSampleStrategy,
    MixtureSampleStrategy,
    PrioritizedSampleStrategy,
    Queue,
    SampleToInsertRatio,
    Stack,
    WithoutReplacementSampleStrategy,
)
from tests.chaos.content import Entry
from tests.chaos.operations import (
    abandoned,
    add_across_a_restore,
    add_and_fail,
    add_at_once,
    add_with_priority,
    adding,
    ejecting_only,
    make_file,
    pace,
    remove,
    removing,
    resized,
    restore,
    restored,
    sample,
    sample_by_another_alpha,
    sample_often,
    sample_three,
    sample_until_used_up,
    set_free,
    taken_by_three,
    unchanged,
    update_priorities,
    used_up,
    wait_long,
    write_back,
)
from tests.chaos.scenario import FIVE, Scenario

FULL = (*FIVE, Entry(5, 10))
NEW = Entry(10, 7)
LIVING = Entry(15, 9)
SEVERAL = (NEW, Entry(11, 1), Entry(12, 2))
MANY = tuple(Entry(identity, 1) for identity in range(512))  # half of the smallest identity map
REPLACE = {"on_duplicate": "replace"}
FEW = {"max_sequences": 5}
WIDE = {"maxlen": 600, "width": 64}  # so wide that the rows reserved at first are soon used up
PACED = {"limiter": SampleToInsertRatio(1.0, 1, 10_000, per="sequence")}
LONG = {"maxlen": 5000}
BY_PRIORITY = {"sampler": PrioritizedSampleStrategy(normalize="table")}
BY_COVERAGE = {"sampler": CoverageSampleStrategy()}
ONCE = {"sampler": WithoutReplacementSampleStrategy()}
QUEUED = {"limiter": Queue(6), "sampler": FifoSampleStrategy()}
STACKED = {"limiter": Stack(6), "sampler": LifoSampleStrategy()}
BY_SEQUENCE = {"sampler": PrioritizedSampleStrategy(per="sequence")}
MIXED = {
    "sampler": MixtureSampleStrategy(
        [
            (0.4, PrioritizedSampleStrategy()),
            (0.3, PrioritizedSampleStrategy(per="sequence")),
            (0.3, WithoutReplacementSampleStrategy()),
        ]
    )
}
ENDING = {"sampler": EndAlignedSampleStrategy(CoverageSampleStrategy(), 0.5)}

SCENARIOS = (
    adding("add", NEW),
    adding("add to an empty table", NEW, start=(), within="reserve_locked"),
    adding("add into a gap", NEW, prepare=remove(1, 3), within="reserve_locked"),
    adding("add that ejects three", Entry(10, 33), start=FULL, within="reserve_locked"),
    adding("add that ejects one as long", Entry(10, 10), start=FULL, within="reserve_locked"),
    adding("add that ejects all", Entry(10, 60), start=FULL[:3], within="reserve_locked"),
    adding("add beyond the sequences", NEW, options=FEW, within="reserve_locked"),
    adding("replace", Entry(2, 6, 1), options=REPLACE, within="commit_locked"),
    adding(
        "replace where it is full",
        Entry(3, 14, 1),
        start=FULL,
        options=REPLACE,
        within="reserve_locked",
    ),
    Scenario(
        "add several at once",
        add_at_once(*SEVERAL),
        lambda before: [before.added(*SEVERAL[:n]) for n in range(len(SEVERAL) + 1)],
        start=FIVE[:3],
        adds=SEVERAL,
        within="_commit_locked",
    ),
    removing("remove the first", 0),
    removing("remove the last", 4),
    removing("remove between gaps", 2, gaps=(1, 3)),
    removing("remove all", 2, 0, 1, start=FIVE[:3]),
    Scenario(
        "clear", lambda table: table.clear(), lambda b: [b, b._replace(entries=())], repeatable=True
    ),
    Scenario("resize", lambda table: table.resize(150), resized(150), start=FULL, repeatable=True),
    Scenario(
        "restore",
        restore,
        restored(),
        prepare=make_file,
        within="_publish_locked",
        from_file=True,
        repeatable=True,
    ),
    Scenario(
        "add across a restore",
        add_across_a_restore(Entry(10, 50)),
        restored(Entry(10, 50)),
        start=FIVE[:1],
        prepare=make_file,
        adds=(Entry(10, 50),),
        within="commit_locked",
        from_file=True,
    ),
    Scenario(
        "replace across a restore",
        add_across_a_restore(Entry(2, 6, 2)),
        restored(Entry(2, 6, 2), replace=True),
        prepare=make_file,
        adds=(Entry(2, 6, 2),),
        options=REPLACE,
        within="commit_locked",
        from_file=True,
    ),
    adding(
        "add beside a living writer",
        Entry(10, 20),
        start=FIVE,
        beside=LIVING,
        within="reserve_locked",
    ),
    Scenario(
        "clear beside a living writer",
        lambda table: table.clear(),
        lambda b: [b, b._replace(entries=())],
        beside=LIVING,
        within="clear_locked",
        repeatable=True,
    ),
    Scenario("sample", sample, unchanged),
    adding("add with priorities", NEW, start=FULL, options=BY_PRIORITY, within="commit_locked"),
    Scenario(
        "update priorities", update_priorities, unchanged, options=BY_PRIORITY, repeatable=True
    ),
    Scenario(
        "sample by another alpha",
        sample_by_another_alpha,
        unchanged,
        options=BY_PRIORITY,
        repeatable=True,
    ),
    Scenario("sample by coverage", sample, unchanged, options=BY_COVERAGE, repeatable=True),
    Scenario("sample once", sample, unchanged, options=ONCE, repeatable=True),
    Scenario(
        "sample what is used up",
        sample_until_used_up,
        used_up,
        prepare=sample_often,
        options={"max_times_sampled": 9, "sampler": FifoSampleStrategy()},
    ),
    Scenario("sample with a limiter", sample, unchanged, options=PACED),
    adding("add with a limiter", NEW, options=PACED),
    adding("add to a queue", NEW, options=QUEUED, within="reserve_paced_locked", free=set_free),
    Scenario("sample from a queue", sample_three, taken_by_three, options=QUEUED, free=set_free),
    Scenario(
        "sample from a stack",
        sample_three,
        lambda b: [b.without(*(2, 3, 4)[:n]) for n in range(4)],
        options=STACKED,
        free=set_free,
    ),
    Scenario("set a limiter", pace, unchanged, repeatable=True),
    Scenario("set another limiter", pace, unchanged, options=QUEUED, repeatable=True),
    Scenario("count what was waited", wait_long, unchanged, repeatable=True),
    Scenario(
        "add with a sequence's priority",
        add_with_priority(NEW, 7.5),
        lambda before: before.adding(NEW),
        start=FULL,
        adds=(NEW,),
        options=BY_SEQUENCE,
        within="commit_locked",
    ),
    Scenario(
        "update sequences' priorities",
        update_priorities,
        unchanged,
        options=BY_SEQUENCE,
        repeatable=True,
    ),
    adding("add to a mixture", NEW, start=FULL, options=MIXED, within="commit_locked"),
    Scenario("sample by a mixture", sample, unchanged, options=MIXED, repeatable=True),
    Scenario(
        "update priorities of a mixture",
        update_priorities,
        unchanged,
        options=MIXED,
        repeatable=True,
    ),
    Scenario("sample to the end", sample, unchanged, options=ENDING, repeatable=True),
    Scenario("write back", write_back, unchanged, repeatable=True),
    Scenario(
        "give up",
        add_and_fail(NEW),
        ejecting_only(NEW),
        start=FULL,
        adds=(NEW,),
        within="abort_of_locked",
    ),
    adding("reclaim an identity", NEW, prepare=abandoned(Entry(10, 5, 1)), within="reclaim_locked"),
    adding(
        "reclaim room",
        Entry(10, 30),
        start=FIVE[:3],
        prepare=abandoned(Entry(11, 31)),
        within="sweep_locked",
    ),
    adding("grow the rows", Entry(10, 450), within="_grow", options=WIDE),
    adding("grow the identity map", Entry(1000, 1), start=MANY, within="_grow", options=LONG),
)
