"""The page itself: HTML without scripts, and nothing that has to be fetched."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape

from shmtable._version import __version__
from shmtable.report.pictures import Picture, pictures
from shmtable.report.seen import Seen
from shmtable.types import ProcessStats

_STYLE = """\
:root { color-scheme: light dark; --back: #ffffff; --card: #f5f6f8; --ink: #1c2126;
  --faint: #59636e; --line: #d5dae0; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a; --card: #1d2226; --ink: #e6e9ec;
  --faint: #a3adb8; --line: #363d44; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--back); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
p { margin: .25rem 0; } .faint, figcaption, dt, th { color: var(--faint); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
  gap: .75rem; margin: 0; }
dl > div, figure { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem; margin: 0; }
dt { font-size: .875rem; } dd { margin: 0; font-variant-numeric: tabular-nums; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr));
  gap: .75rem; }
figure h3 { font-size: 1rem; margin: 0 0 .25rem; } figure svg { display: block; width: 100%;
  height: auto; } figcaption { font-size: .875rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
"""


def page(seen: Seen) -> str:
    """The whole page."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen.written_at))
    name = escape(seen.name)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}: replay table report</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>",
        f"<header><h1>Replay table {name}</h1>",
        f'<p class="faint">{when}, watched for {seen.watched_s:.1f} s, '
        f"shmtable {__version__}</p></header>\n<main>",
        _section("Now", _facts(seen)),
        _section("Pictures", _figures(pictures(seen))),
        _section("Processes", _processes(seen)),
        _section("Columns", _columns(seen)),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>"


def _facts(seen: Seen) -> str:
    stats, spec = seen.last, seen.description
    facts = [
        ("Transitions", f"{stats.transitions:,} of {stats.maxlen:,} ({100 * stats.fill:.0f} %)"),
        ("Sequences", f"{stats.sequences:,} of at most {stats.max_sequences:,}"),
        ("In", _flow(seen, "transitions_added")),
        ("Out", _flow(seen, "transitions_sampled")),
        ("Gone", _flow(seen, "transitions_removed")),
        ("Replay ratio", f"{stats.replay_ratio:.3g} in all"),
        ("Oldest sequence", f"{stats.oldest_age_transitions:,} transitions added since"),
        ("Memory", f"{stats.bytes_reserved / 2**20:,.1f} MiB taken"),
        ("Limiter", stats.limiter or "none"),
        ("Adds", _standing(stats.adds_blocked, stats.adds_waited_s)),
        ("Samples", _standing(stats.samples_blocked, stats.samples_waited_s)),
        ("Lock", f"{stats.lock_waits:,} waits, {stats.lock_waited_s:.2g} s in all"),
        *((role.capitalize(), _strategy(spec[role])) for role in ("sampler", "ejector")),
        ("Repairs", f"{stats.recoveries:,} after processes that died"),
    ]
    entries = (f"<div><dt>{term}</dt><dd>{escape(text)}</dd></div>" for term, text in facts)
    return "<dl>\n" + "\n".join(entries) + "\n</dl>"


def _flow(seen: Seen, total: str) -> str:
    return f"{seen.per_second(total):,.0f} transitions/s; {getattr(seen.last, total):,} in all"


def _standing(blocked: str, waited_s: float) -> str:
    state = f"held back: {blocked}" if blocked else "go through"
    return f"{state}; waited {waited_s:.1f} s in all" if waited_s else state


def _strategy(found: dict[str, object]) -> str:
    config = found["config"]
    given = config.items() if isinstance(config, dict) else ()
    return f"{found['type']}({', '.join(f'{key}={value!r}' for key, value in given)})"


def _figures(made: Sequence[Picture]) -> str:
    if not made:
        return "<p>The table is empty, so there is nothing to draw.</p>"
    figures = (
        f"<figure>\n<h3>{escape(picture.title)}</h3>\n{picture.svg}"
        f"<figcaption>{escape(picture.text)}</figcaption>\n</figure>"
        for picture in made
    )
    return '<div class="pictures">\n' + "\n".join(figures) + "\n</div>"


def _processes(seen: Seen) -> str:
    if not seen.last.processes:
        return "<p>Nobody has the table open.</p>"
    heads = ("Process", "State", "Sequences added", "Transitions added", "Last added", "Sampled")
    return _table(heads, map(_process, seen.last.processes))


def _process(found: ProcessStats) -> tuple[str, ...]:
    return (
        str(found.pid),
        {True: "alive", False: "dead", None: "unknown"}[found.alive],
        f"{found.sequences_added:,}",
        f"{found.transitions_added:,}",
        *map(_ago, (found.added_s_ago, found.sampled_s_ago)),
    )


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s ago"


def _columns(seen: Seen) -> str:
    rows = [
        (
            column["name"],
            column["kind"],
            column["dtype"],
            str(tuple(column["shape"])),
            f"{column['mapper']} of {column['target_name']}" if "mapper" in column else "",
        )
        for column in seen.description["columns"]
    ]
    return _table(("Column", "Kind", "dtype", "Shape", "Computed by"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )
