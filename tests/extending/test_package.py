"""A package that is installed: its pieces are there on the command line, by entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers as hf
import xarray

from tests.tiny import character_tokenizer

PACKAGE = Path(__file__).parent / "package"
HEAVY = "print([m for m in ('torch', 'transformers') if m in sys.modules])"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, installed as pip does."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "package"
    for path in PACKAGE.rglob("*"):  # building writes beside the sources
        if path.suffix in (".py", ".toml"):
            copy = source / path.relative_to(PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the package is installed."""
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_query_uses_all_four(installed: Path, tmp_path: Path) -> None:
    """A statistic, a column, a function and a family of the package, from the command line."""
    config = hf.GPTBigCodeConfig(
        vocab_size=128, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model, tokenizer = hf.GPTBigCodeForCausalLM(config), character_tokenizer()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = ["abcabd abca", "xyz"]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    query = "capture range_of(softsign(x)) as r, max(x) as hi, min(x) as lo from @mlp_act[*]"
    query += " where odd_id"
    done = python(
        installed, "-m", "hookql", "run", "-q", query, "--model", str(tmp_path / "model"),
        "--data", str(tmp_path / "a.txt"), "--output", str(tmp_path / "out.nc"), "--quiet",
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)
    result = xarray.open_dataset(tmp_path / "out.nc")
    odd = sum(each % 2 for text in texts for each in tokenizer(text)["input_ids"])
    assert odd == result["count"].item()
    assert ["transformer.h.0", "transformer.h.1"] == [
        str(m).removesuffix(".mlp.c_proj") for m in result["module"].values
    ]
    # The function rises, so that the range is that of the ends.
    high, low = (result[name] / (1 + abs(result[name])) for name in ("hi", "lo"))
    np.testing.assert_allclose((high - low).values, result["r"].values, rtol=1e-6)


def test_checking_needs_no_torch(installed: Path) -> None:
    """The names of a package's pieces are known as fast as those of HookQL."""
    program = "import sys, hookql\n"
    program += "hookql.check('capture range_of(softsign(x)) from h[0] where odd_id by odd_id')\n"
    done = python(installed, "-c", program + HEAVY)
    assert "[]\n" == done.stdout, done.stderr


def test_a_clash_names_both_packages(installed: Path) -> None:
    """What a script offers under a name that the package has; the same piece again is fine."""
    program = (
        "import importlib, sys, hookql\n"
        "from hookql.extending import function\n"
        "hookql.check('capture mean(softsign(x)) as m from h[0]')\n"
        "import hookql_extra.squash, hookql_extra.odd, hookql_extra.spread, hookql_extra.bigcode\n"
        "for each in ('squash', 'odd', 'spread', 'bigcode'):\n"
        "    importlib.reload(sys.modules['hookql_extra.' + each])\n"
        "try:\n"
        "    function('odd_id')(lambda x: x)\n"
        "except hookql.UsageError as error:\n"
        "    print(error.message)\n"
        "function('mine')(lambda x: x)\n"
        "function('mine')(lambda x: x + 1)\n"
    )
    done = python(installed, "-c", program)
    assert "" == done.stderr
    expected = "the column `odd_id` of the package `hookql-extra` and the function `odd_id` of "
    assert f"{expected}`__main__` have one name\n" == done.stdout


def test_a_run_says_whose_pieces_it_used(installed: Path) -> None:
    """The owner, its version and a hash of the code, for each piece that the query names."""
    program = (
        "from hookql.language.pieces import used_in\n"
        "from hookql.language.plugins import load_plugins\n"
        "load_plugins()\n"
        "for name, said in used_in('capture range_of(x) from h[0] where not odd_id').items():\n"
        "    print(name, '|', said.partition(', sha256:')[0], '|', len(said.split(':')[-1]))\n"
    )
    done = python(installed, "-c", program)
    expected = {
        "statistic range_of | the package `hookql-extra` 1.2 | 16",
        "column odd_id | the package `hookql-extra` 1.2 | 16",
    }
    assert expected == set(done.stdout.splitlines()), done.stderr
