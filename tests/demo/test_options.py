"""The command line: what it accepts, what it says, and what it does not import."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from shmtable.demo.__main__ import main
from shmtable.demo.extras import require_extras
from shmtable.demo.options import LONGEST_EPISODE, Options, parse
from shmtable.errors import MissingExtraError


def test_defaults_are_the_task_as_it_stands():
    options = parse([])
    assert options.actors == 2
    assert options.threshold == 475.0
    assert options.evaluation_episodes == 20
    assert options.time_limit < 600
    assert options.output == Path("demo-output")
    assert options.maxlen >= LONGEST_EPISODE


def test_every_option_can_be_set():
    options = parse(["--actors", "3", "--replay-ratio", "0.5", "--output", "elsewhere"])
    assert (options.actors, options.replay_ratio) == (3, 0.5)
    assert options.output == Path("elsewhere")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--actors", "0"], "argument --actors: 0 is too small; give 1 or more"),
        (["--actors", "two"], "argument --actors: 'two' is not a whole number"),
        (["--maxlen", "499"], "argument --maxlen: 499 is too small; give 500 or more"),
        (["--replay-ratio", "0"], "argument --replay-ratio: 0 is not possible"),
        (["--time-limit", "nan"], "argument --time-limit: nan is not possible"),
        (["--time-limit", "soon"], "argument --time-limit: 'soon' is not a number"),
    ],
)
def test_impossible_values_are_refused(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_help_explains_every_option_and_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for field in dataclasses.fields(Options):
        assert f"--{field.name.replace('_', '-')} " in said
    for code in ("0    solved", "1    not solved", "2    could not start", "130  ended by Ctrl-C"):
        assert code in said


def test_nothing_of_the_extra_is_imported_too_early():
    program = (
        "import sys, shmtable, shmtable.demo.__main__\n"
        "print([name for name in ('gymnasium', 'matplotlib', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_missing_packages_are_all_named():
    with pytest.raises(MissingExtraError) as raised:
        require_extras(("json", "no_such_package", "nor_this_one"))
    assert str(raised.value) == (
        "the demo needs no_such_package and nor_this_one, not installed here; "
        "install the extra that brings them: pip install 'shmtable[demo]'"
    )
    assert raised.value.extra == "demo"


def test_missing_package_ends_the_program_without_a_traceback(monkeypatch, capsys):
    def fail() -> None:
        raise MissingExtraError("the demo needs gymnasium")

    monkeypatch.setattr("shmtable.demo.__main__.require_extras", fail)
    assert main([]) == 2
    assert capsys.readouterr().err == "error: the demo needs gymnasium\n"


def test_a_picture_that_cannot_be_written_is_found_out_first(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert main(["--output", str(tmp_path / "taken")]) == 2
    assert "taken" in capsys.readouterr().err
