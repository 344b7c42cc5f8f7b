"""A mistake on the command line of ``davinci`` or ``analysis`` is one line, with the nearest name."""

import pytest

import analysis.__main__
import davinci.__main__

MISTAKES = {
    "davinci statsu": "error: argument COMMAND: no 'statsu'; nearest: status (python -m davinci --help)",
    "davinci status x --jsn": "error: no option --jsn; nearest: --json, --store (python -m davinci status --help)",
    "davinci status": "error: the following arguments are required: SWEEP (python -m davinci status --help)",
    "davinci status x y": "error: unrecognized arguments: y (python -m davinci --help)",
    "davinci xxx": "error: argument COMMAND: no 'xxx'; accepted: status, logs, cancel, ",
    "davinci data biuld x": "error: argument ACTION: no 'biuld'; nearest: build (python -m davinci data --help)",
    "davinci logs x -n abc": "error: argument -n/--lines: invalid int value: 'abc' (python -m davinci logs --help)",
    "analysis tabel x": "error: argument COMMAND: no 'tabel'; nearest: table (python -m analysis --help)",
    "analysis table x --sorce store": "error: no option --sorce; nearest: --source, ",
    "analysis table x --source sotre": "error: argument --source: no 'sotre'; nearest: store ",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line(arguments, capsys):
    program, *rest = arguments.split()
    with pytest.raises(SystemExit) as ended:
        {"davinci": davinci.__main__, "analysis": analysis.__main__}[program].main(rest)
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(MISTAKES[arguments])
