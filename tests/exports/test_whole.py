"""From a query to an export: what a run has written is what other tools read."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray

import hookql
from hookql.exports import FORMATS, export
from hookql.exports.manifest import damage
from tests.exports.made import read_back

QUERY = """
capture values, values(norm(x)) as size from transformer.h[2:4] where token != pad as acts
capture values from h[1].attn where norm(x) > 5 as large
capture mean from h[0]
"""


@pytest.mark.parametrize("to", FORMATS)
def test_a_run_is_exported(to: str, tmp_path: Path) -> None:
    """Every raw array of a real file comes back, with the sample of each row."""
    texts = ["Jesus wept.", "", "He that is first"]
    with pytest.warns(hookql.HookQLWarning, match="1 sample was empty"):
        hookql.run(QUERY, data=texts, output=tmp_path / "acts.nc")
    folder = export(tmp_path / "acts.nc", to, shard_bytes=5000)
    assert [] == damage(folder)
    found = read_back(folder)
    with xarray.open_datatree(tmp_path / "acts.nc") as tree:
        raw = {node.path: node.to_dataset() for node in tree.subtree if "obs" in node.dims}
        assert {"acts", "large"} == {path.split("/")[1] for path in raw}
        assert set(raw) == set(found)
        for path, data in raw.items():
            for name, array in found[path].items():
                if name != "sample":
                    expected = data[name].transpose("obs", ...)
                    assert expected.dtype == array.dtype
                    assert expected.values.tobytes() == array.tobytes()
            sizes = data["row_size"].values
            samples = [sample for sample, size in enumerate(sizes) for _ in range(size)]
            assert samples == found[path]["sample"].tolist()
