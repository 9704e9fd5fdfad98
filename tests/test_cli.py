"""The command line, as a user meets it: what it prints, writes and exits with."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

import hookql
from hookql.cli import main

FIRST = """\
# The mean and spread of what attention adds, in the first six layers.
capture mean, std
  from transformer.h[0:6].attn
  where token != pad
"""
QUERY = "capture mean from transformer.h[0].attn"
BASE = ["run", "-q", QUERY, "--text", "Hello there", "--quiet"]


class Result:
    """What a command left: its exit code and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in an empty folder of its own, at a terminal of 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `hookql ARGUMENTS` in this process, with a text on stdin."""

    def run(*arguments: str, stdin: str | bytes = b"") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        try:
            code = main(list(arguments))
        except SystemExit as left:
            code = int(left.code or 0)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return run


def spawn(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`hookql ARGUMENTS` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "hookql", *arguments],
        text=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def files() -> list[str]:
    """What lies in the working folder, hidden files too."""
    return sorted(os.listdir("."))


# --- run ----------------------------------------------------------------------------------------


def test_run_a_file(command: Command) -> None:
    """A query file on the demo model and its text: a table, and a file named like the query."""
    Path("first.hq").write_text(FIRST)
    result = command("run", "first.hq", "--limit", "20")
    assert (0, "") == (result.code, result.err)
    assert ["first.hq", "first.nc"] == files()
    assert "written: first.nc" in result.out
    assert "transformer.h[0:6].attn" in result.out
    with xarray.open_dataset("first.nc") as data:
        assert 6 == data.sizes["layer"]
        assert FIRST == data.attrs["query"]
        assert 20 == data.attrs["samples"]


def test_the_file_holds_what_python_gets(command: Command) -> None:
    """Both faces give the same numbers."""
    assert 0 == command(*BASE, "-o", "a.nc").code
    expected = hookql.run(QUERY, texts=["Hello there"], progress=False)
    saved = hookql.load("a.nc")
    np.testing.assert_array_equal(expected["mean"], saved["mean"])
    assert expected.attrs["query_canonical"] == saved.attrs["query_canonical"]


def test_quiet_prints_nothing(command: Command) -> None:
    """`--quiet`: the file is all."""
    result = command(*BASE, "-o", "result.nc")
    assert (0, "", "") == (result.code, result.out, result.err)
    assert ["result.nc"] == files()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["queries/some.query.hq"], "some.query.nc"),
        (["queries/some.query.hq", "-o", "other.nc"], "other.nc"),
        (["-q", QUERY, "-o", "other.nc"], "other.nc"),
        (["-", "-o", "other.nc"], "other.nc"),
    ],
)
def test_default_output_names(command: Command, arguments: list[str], name: str) -> None:
    """A result is named like its query file, in the working folder."""
    Path("queries").mkdir()
    Path("queries/some.query.hq").write_text(QUERY)
    result = command("run", *arguments, "--text", "Hello", "--quiet", stdin=QUERY)
    assert (0, "") == (result.code, result.err)
    assert sorted(["queries", name]) == files()


@pytest.mark.parametrize("query", [["-q", QUERY], ["-"]])
def test_a_query_without_a_file_is_a_look(command: Command, query: list[str]) -> None:
    """Nothing is written, which is said; so it can be run again and again."""
    for _ in range(2):
        result = command("run", *query, "--text", "Hello", stdin=QUERY)
        assert (0, "") == (result.code, result.err)
        assert "transformer.h.0.attn" in result.out
        assert "not saved: give -o FILE.nc to keep it" == result.out.splitlines()[-1]
        assert [] == files()


def test_a_look_writes_what_the_query_says(command: Command) -> None:
    """`into` is an output of its own; what has none is not saved."""
    query = f'{QUERY} as a into "a.nc" capture max from lm_head'
    result = command("run", "-q", query, "--text", "Hello")
    assert 0 == result.code
    assert ["written: a.nc", "not saved: give -o FILE.nc to keep it"] == result.out.splitlines()[
        -2:
    ]
    assert ["a.nc"] == files()


def test_counting_alone_shows_the_count(command: Command) -> None:
    """The one number that was asked for is in the table, in each layer's row."""
    query = "capture count from h[0:2] where position >= 1"
    result = command("run", "-q", query, "--text", "a b c d")
    count = int(hookql.run(query, texts=["a b c d"])["count"])
    rows = [line.split() for line in result.out.splitlines()]
    assert ["layer", "module", "count"] in rows
    assert [["0", "transformer.h.0", str(count)], ["1", "transformer.h.1", str(count)]] == [
        row for row in rows if row and row[0] in ("0", "1") and len(row) == 3
    ]


def test_an_existing_file_is_not_overwritten(command: Command) -> None:
    """Refused before the model runs; replaced with --overwrite."""
    Path("a.nc").write_bytes(b"mine")
    result = command(*BASE, "-o", "a.nc")
    assert 2 == result.code
    assert "error[file-exists]: `a.nc` exists already" in result.err
    assert "`--overwrite`" in result.err
    assert b"mine" == Path("a.nc").read_bytes()
    assert 0 == command(*BASE, "-o", "a.nc", "--overwrite").code
    assert 1 == hookql.load("a.nc").sizes["layer"]


def test_into_files_lie_beside_the_output(command: Command) -> None:
    """Captures with `into` have files of their own; the rest goes into the output."""
    Path("out").mkdir()
    query = f'{QUERY} as a into "a.nc" capture max from lm_head as b capture std from h[1] as c'
    result = command("run", "-q", query, "--text", "Hello", "-o", "out/rest.nc")
    assert (0, "") == (result.code, result.err)
    assert ["a.nc", "rest.nc"] == sorted(os.listdir("out"))
    assert {"b", "c"} == set(hookql.load("out/rest.nc").children)
    assert "mean" in hookql.load("out/a.nc")
    for name in ("out/a.nc", "out/rest.nc"):
        assert f"written: {name}" in result.out


def test_all_into_leaves_no_main_file(command: Command) -> None:
    """Nothing is left to be saved elsewhere."""
    result = command("run", "-q", f'{QUERY} into "a.nc"', "--text", "Hello", "--quiet")
    assert (0, "") == (result.code, result.err)
    assert ["a.nc"] == files()


def test_an_output_that_nothing_is_left_for(command: Command, golden: Any) -> None:
    """An output beside captures that all have `into`: said, for it is not written."""
    result = command("run", "-q", f'{QUERY} into "a.nc"', "--text", "Hello", "-o", "b.nc")
    assert 0 == result.code
    assert ["a.nc"] == files()
    golden("cli/warning-unused-output.txt", result.err)


def test_an_existing_into_file_is_not_overwritten(command: Command) -> None:
    """It is looked at before the model runs, as the output is."""
    Path("a.nc").write_bytes(b"mine")
    result = command("run", "-q", f'{QUERY} into "a.nc"', "--text", "Hello", "--quiet")
    assert 2 == result.code
    assert "file-exists" in result.err
    assert b"mine" == Path("a.nc").read_bytes()


def test_data_from_stdin(command: Command) -> None:
    """`--data -` reads a sample a line."""
    arguments = ["run", "-q", QUERY, "--data", "-", "--quiet", "-o", "result.nc"]
    result = command(*arguments, stdin="Hello\nthere\n")
    assert (0, "") == (result.code, result.err)
    saved = hookql.load("result.nc")
    assert 2 == saved.attrs["samples"]
    assert "<stdin>" == saved.attrs["data"]


def test_texts_and_limits(command: Command) -> None:
    """`--text` may be repeated, `--limit` takes the first ones."""
    arguments = ["run", "-q", QUERY, "--quiet", "--text", "one", "--text", "two", "--text", "three"]
    assert 0 == command(*arguments, "-o", "a.nc").code
    assert 0 == command(*arguments, "--limit", "2", "-o", "b.nc").code
    assert [3, 2] == [hookql.load(f).attrs["samples"] for f in ("a.nc", "b.nc")]


def test_columns_of_a_table(command: Command) -> None:
    """`--column` says where the text is; the others are `row.NAME`."""
    Path("d.csv").write_text("body,label\nHello there,a\nGood bye,b\n")
    query = f'{QUERY} where row.label == "b"'
    arguments = ["run", "-q", query, "--data", "d.csv", "--column", "body", "--quiet"]
    result = command(*arguments, "-o", "result.nc")
    assert (0, "") == (result.code, result.err)
    expected = hookql.run(QUERY, texts=["Good bye"])
    np.testing.assert_allclose(expected["mean"], hookql.load("result.nc")["mean"], atol=1e-6)


def test_warnings_go_to_stderr(command: Command) -> None:
    """A selection that keeps nothing is said beside the table, and is no failure."""
    result = command("run", "-q", f"{QUERY} where position > 999", "--text", "Hello")
    assert 0 == result.code
    assert "warning[empty-selection]: `attn` kept no token: all but its count is NaN" in result.err
    assert "empty-selection" not in result.out


def test_a_run_that_fails_exits_with_1(command: Command) -> None:
    """The data is not there: not the usage's fault."""
    result = command("run", "-q", QUERY, "--data", "nothing.txt")
    assert 1 == result.code
    assert "error[no-such-file]" in result.err
    assert [] == files()


def test_ctrl_c_in_this_process(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the middle: 130, a word, no file."""

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hookql.engines.local._forward", interrupted)
    result = command(*BASE, "-o", "result.nc")
    assert (130, "", "interrupted: nothing was written\n") == (result.code, result.out, result.err)
    assert [] == files()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    """SIGINT twice in a batch: exit 130, neither a result nor a temporary file, no traceback."""
    samples = (f"sample {i} is one of very many that are run" for i in range(200_000))
    Path("many.txt").write_text("\n".join(samples))
    # The last samples of `--text` are never reached; progress in lines shows that it runs.
    program = (
        "import sys, time, hookql.engines.local as local, hookql.cli\n"
        "forward = local._forward\n"
        "def said(*arguments):\n"
        "    print('running', flush=True)\n"
        "    time.sleep(30)\n"
        "    return forward(*arguments)\n"
        "local._forward = said\n"
        "sys.exit(hookql.cli.main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", "-q", QUERY, "--data", "many.txt", "-o", "a.nc"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "running\n" == process.stdout.readline()
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    assert "finishing the batch; again to stop now\n" == process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (130, "interrupted: nothing was written\n") == (process.returncode, err)
    assert ["many.txt"] == files()


def test_a_broken_pipe_is_no_error() -> None:
    """`hookql modules | head -1`: the reader is gone, and nobody is told."""
    process = spawn("modules")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert (0, "") == (process.wait(timeout=60), err)


# --- check, explain, modules, show --------------------------------------------------------------


def test_check(command: Command) -> None:
    """Syntax and names alone load no model; with one, sites are bound."""
    Path("first.hq").write_text(FIRST)
    result = command("check", "first.hq")
    assert (0, "first.hq: 1 capture, no errors\n", "") == (result.code, result.out, result.err)
    result = command("check", "-", "--model", "demo", stdin=FIRST + "capture max from lm_head")
    assert (0, "<stdin>: 2 captures, no errors, and binds to demo\n") == (result.code, result.out)


def test_check_finds_what_does_not_bind(command: Command) -> None:
    """A path that is no module is only wrong with a model."""
    query = "capture mean from transformer.h[0:60].attn"
    assert 0 == command("check", "-q", query).code
    result = command("check", "-q", query, "--model", "demo")
    assert 2 == result.code
    assert "h[0:60]" in result.err


def test_check_prints_warnings(command: Command) -> None:
    """`token == pad` keeps nothing: said, and no error."""
    result = command("check", "-q", f"{QUERY} where token == pad")
    assert 0 == result.code
    assert result.err.startswith("warning[")


SHARED = """
let late = position >= 1
capture mean, std from transformer.h[0:2].attn, h[0].mlp where late
capture max, min from transformer.h[1].attn where position >= 1 as extremes into "e.nc"
capture rms from lm_head:input pool feature
"""


@pytest.mark.parametrize("format", ["text", "json", "mermaid"])
def test_explain(command: Command, golden: Any, format: str) -> None:
    """What a run would do, in each format, runs no data and writes nothing."""
    result = command("explain", "-q", SHARED, "--format", format)
    assert (0, "") == (result.code, result.err)
    golden(f"explain/demo.{format}.txt", result.out)
    assert [] == files()


@pytest.mark.parametrize("pattern", [None, "h[0].**", "** isa linear"])
def test_modules(command: Command, golden: Any, pattern: str | None) -> None:
    """The demo model's tree, whole and filtered."""
    result = command("modules", *([pattern] if pattern else []))
    assert (0, "") == (result.code, result.err)
    name = {None: "all", "h[0].**": "first-block", "** isa linear": "linear"}[pattern]
    golden(f"cli/modules-{name}.txt", result.out)


def test_show(command: Command) -> None:
    """What a file holds and how it was made."""
    assert 0 == command(*BASE, "-o", "a.nc").code
    result = command("show", "a.nc")
    assert (0, "") == (result.code, result.err)
    for said in ("capture mean", "demo", "transformer.h[0].attn", "1 sample"):
        assert said in result.out.replace("transformer.h.0.attn", "transformer.h[0].attn")


# --- fmt ----------------------------------------------------------------------------------------

UGLY = "#one\ncapture   mean,std from h[ 0 ]  # two\n where   token!=pad\n"


def test_fmt_prints(command: Command) -> None:
    """To stdout by default, comments kept; its own output is left alone."""
    Path("a.hq").write_text(UGLY)
    result = command("fmt", "a.hq")
    assert (0, "") == (result.code, result.err)
    assert "#one" in result.out.replace("# one", "#one")
    assert "# two" in result.out
    assert "mean, std" in result.out
    assert UGLY == Path("a.hq").read_text()
    again = command("fmt", "-", stdin=result.out)
    assert (0, result.out) == (again.code, again.out)


def test_fmt_writes(command: Command) -> None:
    """`-w` rewrites what would change and names it."""
    Path("a.hq").write_text(UGLY)
    formatted = command("fmt", "a.hq").out
    Path("b.hq").write_text(formatted)
    result = command("fmt", "-w", "a.hq", "b.hq")
    assert (0, "reformatted a.hq\n", "") == (result.code, result.out, result.err)
    assert formatted == Path("a.hq").read_text() == Path("b.hq").read_text()


def test_fmt_checks(command: Command) -> None:
    """`--check` exits with 1 if a file would change, and changes none."""
    Path("a.hq").write_text(UGLY)
    Path("b.hq").write_text(command("fmt", "a.hq").out)
    result = command("fmt", "--check", "a.hq", "b.hq")
    assert (1, "would reformat a.hq\n", "") == (result.code, result.out, result.err)
    assert UGLY == Path("a.hq").read_text()
    result = command("fmt", "--check", "b.hq")
    assert (0, "", "") == (result.code, result.out, result.err)


def test_fmt_goes_on_after_a_broken_file(command: Command) -> None:
    """One broken file is an error; the others are formatted, it is left as it is."""
    Path("a.hq").write_text("capture mean frm h")
    Path("b.hq").write_text(UGLY)
    result = command("fmt", "-w", "a.hq", "b.hq")
    assert (2, "reformatted b.hq\n") == (result.code, result.out)
    assert "--> a.hq:1:14" in result.err
    assert "capture mean frm h" == Path("a.hq").read_text()


# --- mistakes -----------------------------------------------------------------------------------

MISTAKES: dict[str, list[str]] = {
    "no-query": ["run"],
    "two-queries": ["run", "q.hq", "-q", QUERY],
    "data-as-query": ["run", "-q", QUERY, "lf.txt"],
    "missing-query-file": ["run", "missing.hq"],
    "query-without-q": ["run", "capture rms from h[*]"],
    "query-file-with-space": ["check", "my query.hq"],
    "stdin-twice": ["run", "-", "--data", "-"],
    "repeated-data": ["run", "-q", QUERY, "--data", "d.jsonl", "--data", "d.csv"],
    "repeated-query": ["check", "-q", QUERY, "-q", QUERY],
    "repeated-model": ["modules", "--model", "demo", "--model", "gpt2"],
    "empty-data": ["run", "-q", QUERY, "--data", ""],
    "empty-model": ["modules", "--model", ""],
    "empty-file": ["check", ""],
    "query-folder": ["check", "."],
    "query-not-utf8": ["check", "latin.hq"],
    "syntax": ["check", "-q", "capture mean frm h[0]"],
    "empty": ["check", "-q", ""],
    "several-errors": ["check", "-q", "capture mean, medan from h[0] where tokn == 1 pool fature"],
    "not-yet": ["run", "-q", "capture values from h[0]"],
    "unknown-module": ["run", "-q", "capture mean from transformer.h[0].atn"],
    "index": ["explain", "-q", "capture mean from transformer.h[0:60].attn"],
    "literal": ["run", "-q", f'{QUERY} where token == "qzxjkvw qzx"', "--text", "a"],
    "unknown-column": ["run", "-q", f'{QUERY} where row.label == "a"', "--text", "a"],
    "model-folder": ["run", "-q", QUERY, "--model", "./nothing", "--text", "a"],
    "dtype": ["run", "-q", QUERY, "--dtype", "float8", "--text", "a"],
    "device": ["run", "-q", QUERY, "--device", "gpu", "--text", "a"],
    "attention": ["run", "-q", QUERY, "--attn", "eagr", "--text", "a"],
    "revision": ["run", "-q", QUERY, "--revision", "main", "--text", "a"],
    "missing-data": ["run", "-q", QUERY, "--data", "missing.txt"],
    "data-format": ["run", "-q", QUERY, "--data", "d.xyz"],
    "data-twice": ["run", "-q", QUERY, "--data", "d.jsonl", "--text", "a"],
    "bad-json": ["run", "-q", QUERY, "--data", "d.jsonl"],
    "data-column": ["run", "-q", QUERY, "--data", "d.csv", "--column", "txt"],
    "limit": ["run", "-q", QUERY, "--text", "a", "--limit", "0"],
    "batch-size": ["run", "-q", QUERY, "--text", "a", "--batch-size", "-1"],
    "max-length": ["run", "-q", QUERY, "--text", "a", "--max-length", "100000"],
    "overflow-error": [
        "run", "-q", QUERY, "--text", "a b c d e f", "--max-length", "2", "--overflow", "error",
    ],
    "output-folder": ["run", "-q", QUERY, "--text", "a", "-o", "."],
    "output-ending": ["run", "-q", QUERY, "--text", "a", "-o", "a.txt"],
    "output-bare": ["run", "-q", QUERY, "--text", "a", "-o", ".nc"],
    "quiet-look": ["run", "-q", QUERY, "--text", "a", "--quiet"],
    "output-nowhere": ["run", "-q", QUERY, "--text", "a", "-o", "no/where.nc"],
    "into-output": ["run", "-q", f'{QUERY} into "a.nc"', "--text", "a", "-o", "a.nc"],
    "into-outside": ["check", "-q", f'{QUERY} into "../a.nc"'],
    "no-tensor": ["run", "-q", "capture mean from h[0].attn:output[1]", "--text", "a"],
    "never-ran": ["run", "-q", "capture mean from **.attn_dropout", "--text", "a"],
    "pool": ["run", "-q", f"{QUERY} pool feature, head", "--text", "a"],
    "modules-pattern": ["modules", "h[0].nothing"],
    "show-missing": ["show", "missing.nc"],
    "show-folder": ["show", "."],
    "show-not-netcdf": ["show", "d.csv"],
    "fmt-missing": ["fmt", "missing.hq"],
}  # fmt: skip
FAILURES = {"model-folder", "missing-data", "data-format", "bad-json", "overflow-error"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_and_never_traced(command: Command, golden: Any, mistake: str) -> None:
    """A diagnostic on stderr, nothing on stdout, exit code 2 (1 where the run itself failed)."""
    Path("latin.hq").write_bytes(b"# caf\xe9\ncapture mean from h[0]")
    Path("q.hq").write_text(QUERY)
    Path("d.xyz").write_text("a")
    Path("d.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    Path("d.csv").write_text("text,label\na,b\n")
    before = files()
    result = command(*MISTAKES[mistake])
    assert "Traceback" not in result.err + result.out
    assert "" == result.out
    assert (1 if mistake in FAILURES else 2) == result.code
    assert before == files()
    golden(f"cli/mistake-{mistake}.txt", result.err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["rum"], "invalid choice: 'rum'"),
        (["run", "--modle", "gpt2"], "unrecognized arguments: --modle"),
        (["run", "q.hq", "--batchsize", "3"], "--batchsize 3; did you mean `--batch-size`?"),
        (["run", "q.hq", "--batch", "3"], "unrecognized arguments: --batch"),
        (["run", "capture", "mean", "from", "h"], "goes behind `-q`, in quotation marks"),
        (["run", "-q", QUERY, "--limit", "ten"], "invalid int value: 'ten'"),
        (["run", "-q", QUERY, "--overflow", "cut"], "invalid choice: 'cut'"),
        (["explain", "-q", QUERY, "--format", "xml"], "invalid choice: 'xml'"),
        (["fmt"], "required: FILE"),
        (["fmt", "-w", "--check", "a.hq"], "not allowed with argument"),
        (["show"], "required: FILE.nc"),
    ],
)
def test_wrong_options_are_told(command: Command, arguments: list[str], said: str) -> None:
    """Python's own words differ between versions: usage, the essence, exit code 2."""
    result = command(*arguments)
    assert (2, "") == (result.code, result.out)
    assert result.err.startswith("usage: hookql")
    assert said in result.err.splitlines()[-1]


# --- speed of the light commands ----------------------------------------------------------------


@pytest.fixture
def light() -> Callable[..., set[str]]:
    """Run the command line in a fresh process; which heavy packages it imported."""

    def imported(*arguments: str) -> set[str]:
        program = (
            "import json, sys\n"
            "from hookql.cli import main\n"
            "try:\n    code = main(sys.argv[1:])\n"
            "except SystemExit as left:\n    code = left.code\n"
            "heavy = ('torch', 'transformers', 'xarray', 'netCDF4', 'numpy', 'pandas')\n"
            "sys.stderr.write(json.dumps([code, [m for m in heavy if m in sys.modules]]))\n"
        )
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        code, modules = json.loads(done.stderr.splitlines()[-1])
        assert 0 == (code or 0)
        return set(modules)

    return imported


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"],
                                       ["check", "first.hq"], ["fmt", "first.hq"]])  # fmt: skip
def test_light_commands_import_no_torch(
    light: Callable[..., set[str]], arguments: list[str]
) -> None:
    """Help, check and fmt answer at once: torch and what needs it stay on the disk."""
    Path("first.hq").write_text(FIRST)
    assert set() == light(*arguments) & {"torch", "transformers", "xarray", "netCDF4", "pandas"}


def test_version(command: Command) -> None:
    """The package's own number."""
    result = command("--version")
    assert (0, f"hookql {hookql.__version__}\n") == (result.code, result.out)


@pytest.mark.parametrize("name", ["run", "check", "explain", "modules", "fmt", "show"])
def test_every_command_has_help(command: Command, name: str) -> None:
    """`hookql NAME --help` explains itself, and every option it has."""
    result = command(name, "--help")
    assert 0 == result.code
    assert result.out.startswith(f"usage: hookql {name}")
    assert name in command("--help").out


def test_python_m_hookql() -> None:
    """`python -m hookql` is the command, with its exit codes."""
    process = spawn("check", "-q", "capture nothing")
    out, err = process.communicate(timeout=60)
    assert (2, "") == (process.returncode, out)
    assert err.startswith("error[")


def test_progress_in_lines(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stderr is no terminal, a line each half minute says how far it is."""
    monkeypatch.setattr("hookql.progress._LINE_SECONDS", 0.0)
    texts = [part for i in range(5) for part in ("--text", f"sample {i}")]
    result = command("run", "-q", QUERY, *texts, "--batch-size", "1")
    lines = result.err.splitlines()
    assert 5 == len(lines)
    for number, line in enumerate(lines, 1):
        assert line.startswith(f"{number} samples of 5, ")
        assert line.endswith("tokens/s")
    quiet = command("run", "-q", QUERY, *texts, "--quiet", "-o", "a.nc")
    assert "" == quiet.err


def test_progress_as_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A terminal gets a bar; it is gone when the run is over."""
    monkeypatch.setattr("hookql.progress._QUIET_SECONDS", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    hookql.run(QUERY, texts=["one", "two"], progress=True, batch_size=1)
    assert "samples, " in capsys.readouterr().err


def test_time_is_not_wasted(command: Command) -> None:
    """A hub that cannot be reached is one message at once: no retries."""
    started = time.perf_counter()
    result = command("run", "-q", QUERY, "--model", "nobody/nothing", "--text", "a")
    assert 1 == result.code
    assert "Traceback" not in result.err
    assert "nobody/nothing" in result.err
    assert time.perf_counter() - started < 20
