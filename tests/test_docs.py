"""The documents cannot rot: their code runs, their output is real, their links lead somewhere."""

from __future__ import annotations

import io
import pickle
import re
import runpy
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from attrs import frozen
from transformers import AutoTokenizer

import hookql
from hookql.cli import main
from hookql.demo import model_path, text_path
from hookql.language.parser import parse
from hookql.models.load import load_model
from hookql.statistics import STATISTICS
from tests import oracle
from tests.extending.made import pieces_as_before

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
COOKBOOK = (ROOT / "docs/cookbook.md").read_text(encoding="utf-8")
# tests/test_cookbook.py runs those of the cookbook, each on the model that it is for.
QUERIES = sorted(
    path for path in ROOT.glob("examples/*.hq") if f"<!-- query: {path.stem} -->" not in COOKBOOK
)
SCRIPTS = sorted(ROOT.glob("examples/*.py"))
RUN = "<!-- run -->"
RUN_WRONG = "<!-- run: an error -->"
FILE = re.compile(r"<!-- file: (\S+) -->")


@pytest.fixture(autouse=True)
def pieces() -> Iterator[None]:
    """What a page adds to the language is gone afterwards."""
    with pieces_as_before():
        yield


def name_of(path: Path) -> str:
    """A file's path in the repository, as the name of its test."""
    return path.relative_to(ROOT).as_posix()


@frozen
class Block:
    """A fenced block of a page: its language, its text, the line above it and where it stands."""

    language: str
    text: str
    above: str
    start: int
    end: int


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page; ``start`` and ``end`` are the offsets of their text."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        above = text[: found.start()].rstrip("\n").rpartition("\n")[2]
        yield Block(found[1], found[2], above, found.start(2), found.end(2))


def pages_with(language: str, above: str = "") -> list[Path]:
    """The pages that hold a block of a language, under a line that begins so."""

    def fits(block: Block) -> bool:
        return (
            block.language == language
            and block.above.startswith(above)
            and not FILE.search(block.above)
        )

    return [page for page in PAGES if any(map(fits, blocks(page)))]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in: the examples and the first result are there, nothing is left behind."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.nc"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


# Console blocks: commands behind `$`, and what they really print.


def shell(command: str, expected: int) -> str:
    """What a command of a console block prints, stdout and stderr together, and exits with."""
    words = shlex.split(command, comments=True)
    if words[0] == "cat":
        return Path(words[1]).read_text(encoding="utf-8")
    assert words[0] == "hookql", f"a console block runs hookql and cat, not {words[0]}"
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with redirect_stdout(stream), redirect_stderr(stream):
        code = main(words[1:])
    assert isinstance(stream.buffer, io.BytesIO)
    printed = stream.buffer.getvalue().decode("utf-8")
    assert expected == code, printed
    return printed


def commands(text: str) -> list[str]:
    """The commands of a console block."""
    return re.findall(r"^\$ (.*)$", text, re.MULTILINE)


def really(block: Block) -> str:
    """The block as it would have to be: its commands, and what they print now."""
    code = 2 if block.above == RUN_WRONG else 0
    return "\n".join(f"$ {c}\n{shell(c, code)}" for c in commands(block.text))


def skeleton(text: str) -> tuple[str, list[float]]:
    """A text less what varies, and its measured numbers apart.

    Times, dates, bars and room on the disk are masked, and runs of spaces count as one, for a
    number may round to one character more.
    """
    text = re.sub(r"\d[\d.e-]* s for", "TIME s for", text)
    text = re.sub(r"[\d.,]+ [kMGT]B free", "ROOM free", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "DATE", text)
    text = re.sub(r"[▏▎▍▌▋▊▉█]+", "BAR", text)
    measured = r"-?\b\d+\.\d+(?:e[+-]?\d+)?\b(?!\.)"
    numbers = [float(n) for n in re.findall(measured, text)]
    return re.sub(r" +", " ", re.sub(measured, "N", text)), numbers


@pytest.mark.parametrize("page", pages_with("console", "<!-- run"), ids=name_of)
def test_consoles_show_what_is_printed(
    page: Path, workplace: Path, request: pytest.FixtureRequest
) -> None:
    """Each console block marked to be run prints what it shows; --update-golden rewrites it."""
    found = [b for b in blocks(page) if b.language == "console" and b.above in (RUN, RUN_WRONG)]
    now = [really(block) for block in found]
    if request.config.getoption("--update-golden"):
        text = page.read_text(encoding="utf-8")
        for block, actual in reversed(list(zip(found, now, strict=True))):
            text = text[: block.start] + actual + text[block.end :]
        page.write_text(text, encoding="utf-8", newline="")
        return
    for block, actual in zip(found, now, strict=True):
        expected, shown = skeleton(block.text)
        printed, measured = skeleton(actual)
        assert expected == printed
        assert shown == pytest.approx(measured, rel=2e-3, abs=2e-6)


# Python and query blocks, and the examples.


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_python_blocks_run(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The Python blocks of a page run in order, in one namespace."""
    hookql.run(workplace / "examples/first.hq", output="first.nc")
    # A page may draw; whether matplotlib is there is not what is tested.
    monkeypatch.setattr(xarray.DataArray, "plot", lambda self: None)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python" and not FILE.search(block.above):
            with warnings.catch_warnings():
                warnings.simplefilter("error", hookql.HookQLWarning)
                line = page.read_text(encoding="utf-8")[: block.start].count("\n")
                code = compile("\n" * line + block.text, str(page), "exec")
                exec(code, namespace)


@pytest.mark.parametrize("page", pages_with("hookql"), ids=name_of)
def test_query_blocks_parse(page: Path) -> None:
    """The query blocks of a page are in the language."""
    for block in blocks(page):
        if block.language == "hookql":
            assert parse(block.text, name_of(page)).statements


@pytest.mark.parametrize("query", QUERIES, ids=name_of)
def test_example_queries_run(query: Path, workplace: Path) -> None:
    """Each example is in canonical layout, says what it answers, and gives finite numbers."""
    assert query.read_text(encoding="utf-8").startswith("# ")
    assert 0 == main(["fmt", "--check", str(query)])
    result = hookql.run(query, output=workplace / f"{query.stem}.nc")
    datasets = [node.to_dataset() for node in result.subtree if node.has_data]
    assert datasets
    for data in datasets:
        assert data["count"].min() > 0
        for variable in data.data_vars.values():
            assert np.isfinite(variable.values).all()


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_example_scripts_run(
    script: Path, workplace: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each script runs to its end and prints something."""
    monkeypatch.setenv("SAE_STEPS", "90")  # the whole of it takes half a minute
    runpy.run_path(str(workplace / "examples" / script.name), run_name="__main__")
    assert capsys.readouterr().out.strip()


# The walk-through of CONTRIBUTING.md, and the map of docs/architecture.md.


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The statistic of CONTRIBUTING.md, registered; its name."""
    page = ROOT / "CONTRIBUTING.md"
    code = next(b.text for b in blocks(page) if "file: hookql/statistics/range.py" in b.above)
    known = dict(STATISTICS)
    (tmp_path / "range_of_contributing.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("range_of_contributing")
    yield next(name for name in STATISTICS if name not in known)
    STATISTICS.registered.pop("range", None)
    sys.modules.pop("range_of_contributing", None)


def test_the_walk_through_gives_a_right_statistic(plugged: str) -> None:
    """The statistic that CONTRIBUTING.md adds runs by name and equals NumPy's on the demo."""
    assert "range" == plugged
    model = load_model("demo")
    texts = text_path().read_text(encoding="utf-8").splitlines()[:8]
    query = "capture range, max from transformer.h[*]; capture range from h[*] pool feature as all"
    result = hookql.run(query, model=model, texts=texts)
    tokenizer = AutoTokenizer.from_pretrained(model_path())
    modules = [f"transformer.h.{layer}" for layer in range(8)]
    outputs = oracle.outputs_of(model.module, modules, oracle.encode(tokenizer, texts))
    for layer, module in enumerate(modules):
        rows = np.concatenate(outputs[module])
        actual = result["h/transformer.h"]["range"].sel(layer=layer).values
        margin = 1e-5 * np.abs(rows).max()
        np.testing.assert_allclose(actual, np.ptp(rows, axis=0), rtol=0, atol=2 * margin)
        pooled = float(result["all/transformer.h"]["range"].sel(layer=layer))
        assert np.ptp(rows) == pytest.approx(pooled, abs=2 * margin)


def test_the_walk_throughs_accumulator_merges(plugged: str) -> None:
    """It merges, pickles and says NaN where nothing was seen, as every accumulator must."""
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    statistic = STATISTICS[plugged]
    whole, left, right = (statistic.accumulator() for _ in range(3))
    whole.update(rows)
    left.update(rows[:25])
    right.update(rows[25:])
    right.merge(pickle.loads(pickle.dumps(left)))
    assert torch.equal(statistic.finish(whole), statistic.finish(right))
    assert bool(statistic.finish(statistic.accumulator()).isnan().all())


def test_the_map_names_every_file() -> None:
    """docs/architecture.md has a line for each file of the package, and none for what is gone."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/.*]+\.(?:py|lark))` \|", text, re.MULTILINE))
    for pattern in [name for name in named if "*" in name]:  # one line for files of one kind
        named.remove(pattern)
        named |= {p.relative_to(ROOT / "hookql").as_posix() for p in ROOT.glob(f"hookql/{pattern}")}
    named = {name for name in named if not name.endswith("__init__.py")}
    files = {p.relative_to(ROOT / "hookql").as_posix() for p in (ROOT / "hookql").rglob("*.py")}
    files = {f for f in files if not f.endswith("__init__.py")} | {"grammar/hookql.lark"}
    assert sorted(files) == sorted(named)


# Links.


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link is a file of the repository, and its anchor a heading there."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{name_of(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_pages_keep_to_the_repository() -> None:
    """No page names a folder of the machine that it was written on."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w./])/(?:work|tmp|home|root)/", text), name_of(page)
