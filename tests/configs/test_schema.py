"""The JSON Schema says what the reader does, and all options are settings."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hookql.configs import Analysis, json_schema
from hookql.configs.document import Document, from_python
from hookql.configs.settings import DataSettings, ModelSettings, RunSettings, names_of
from hookql.configs.structure import structured
from hookql.configs.variables import expanded
from hookql.options import CHOICES, ModelOptions, RunOptions

VALIDATOR = Draft202012Validator(json_schema())

KEYS = ["queries", "model", "data", "options", "outputs", "overwrite", "$schema", "nothing"]
LEAVES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.sampled_from([0, 1, 5, -1, 2.5, 0.5])
    | st.sampled_from(["", "x", "split", "zstd", "float32", "${N}", "${W}x", "capture mean"])
)  # fmt: skip
INNER = [
    *names_of(ModelSettings), *names_of(DataSettings), *names_of(RunSettings),
    "query", "file", "output", "data",
]  # fmt: skip
small = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(INNER), inner, max_size=3)
    ),
    max_leaves=6,
)
CONFIGS = st.fixed_dictionaries(
    {"queries": small | st.dictionaries(st.sampled_from(["a", "b"]), small, min_size=1)},
    optional=dict.fromkeys(KEYS[1:], small),
).filter(lambda config: config["queries"] != {})  # which is said with what does not agree


def test_it_is_a_schema() -> None:
    """Of draft 2020-12, in which every setting has words."""
    Draft202012Validator.check_schema(json_schema())
    schema = json_schema()
    for part in (schema, *schema["$defs"].values()):
        silent = [name for name, each in part["properties"].items() if not each["description"]]
        assert [] == silent


@settings(deadline=None, derandomize=True, max_examples=300)
@given(CONFIGS)
def test_it_takes_what_the_reader_takes(config: dict[str, Any]) -> None:
    """No more and no less, as far as types and names go; variables have right values."""
    document, _ = expanded(Document(from_python(config), "config"), {"N": "1", "W": "float3"})
    read, problems = structured(document, None)
    own = read.queries.values() if read is not None else ()
    for each in (None if read is None else read.data, *(query.data for query in own)):
        if each is not None and each.texts is not None and (each.path or not each.texts):
            read = None  # which is said with what does not agree
    if "${" not in str(config):
        assert (read is not None) == VALIDATOR.is_valid(config), problems
    elif read is not None:
        assert VALIDATOR.is_valid(config)


def test_data_is_a_path_or_texts() -> None:
    """Not both, nor no texts at all; nothing below a name leaves all as it is."""
    queries = {"a": "capture mean from h"}
    for data, fits in (
        ({"path": "a.txt", "texts": ["a"]}, False),
        ({"texts": []}, False),
        ({"path": None, "texts": ["a"]}, True),
        ({"path": "a.txt", "texts": None}, True),
    ):
        assert fits == VALIDATOR.is_valid({"queries": queries, "data": data})
    empty = {"queries": queries, "model": None, "options": None, "data": None, "outputs": None}
    assert VALIDATOR.is_valid(empty)
    assert Analysis.from_dict({"queries": queries}).settings == Analysis.from_dict(empty).settings


def test_every_option_is_a_setting() -> None:
    """A new option of a run needs a setting, so that configs can have it."""
    ours = {*names_of(ModelSettings), *names_of(DataSettings), *names_of(RunSettings)}
    assert {*RunOptions.__annotations__, *ModelOptions.__annotations__} == ours - {
        "name", "path", "texts"
    }  # fmt: skip


def test_choices_are_those_of_the_options() -> None:
    """The words of `compress`, `store_dtype` and `on_error`."""
    types = get_type_hints(RunSettings)
    assert dict(CHOICES) == {name: get_args(get_args(types[name])[0]) for name in CHOICES}
