"""The door through which statistics enter: files of the package and plug-ins alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hookql.errors import UsageError
from hookql.language import pieces, plugins
from hookql.statistics import core
from tests.extending.made import pieces_as_before

PLUGIN = '''
from hookql.statistics import statistic
from hookql.statistics.counter import Counter

@statistic("{name}", key="count", accumulator=Counter, cell_method="count")
def twice(state):
    """Twice the number of rows."""
    return 2 * state.count
'''


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[core.Registry]:
    """A fresh registry that knows the built-in statistics and can import from tmp_path."""
    assert "mean" in core.STATISTICS
    registry = core.Registry()
    registry.registered.update(core.STATISTICS.registered)
    monkeypatch.setattr(core, "STATISTICS", registry)
    monkeypatch.setattr(pieces.LOADING, "done", set())
    monkeypatch.syspath_prepend(tmp_path)
    with pieces_as_before():
        yield registry


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, text: str) -> None:
    """Make a module the one plug-in there is."""
    (folder / f"{module}.py").write_text(text)
    entry = EntryPoint("extra", module, "hookql.statistics")
    found = {entry.group: [entry]}
    monkeypatch.setattr(plugins, "entry_points", lambda group: found.get(group, []))
    monkeypatch.delitem(sys.modules, module, raising=False)


def test_a_plugin_is_a_statistic_like_any_other(
    registry: core.Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A module named by an entry point registers through the built-ins' own door."""
    install(monkeypatch, tmp_path, "hookql_plugin_good", PLUGIN.format(name="twice"))
    assert registry["twice"].doc == "Twice the number of rows."
    assert "twice" in list(registry)
    assert len(list(registry)) == len(registry)


def test_a_clash_names_both_every_time(
    registry: core.Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two statistics of one name are an error that says where both come from, at every look."""
    install(monkeypatch, tmp_path, "hookql_plugin_clash", PLUGIN.format(name="mean"))
    for _ in range(2):
        with pytest.raises(UsageError) as caught:
            len(registry)
        assert "name-clash" == caught.value.code
        assert "HookQL itself" in caught.value.message
        assert "hookql_plugin_clash" in caught.value.message


def test_a_broken_plugin_is_named(
    registry: core.Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A plug-in that cannot be imported is no traceback."""
    install(monkeypatch, tmp_path, "hookql_plugin_broken", "import no_such_module_anywhere")
    with pytest.raises(UsageError) as caught:
        registry["mean"]
    assert caught.value.code == "broken-plugin"
    assert "hookql_plugin_broken" in caught.value.message
