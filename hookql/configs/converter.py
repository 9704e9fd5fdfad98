"""The converter of cattrs that fills the settings: a value has its type, or it is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from attrs import has
from cattrs import Converter
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, mapping_structure_factory

from hookql.configs.from_yaml import scalar
from hookql.configs.places import data_place, file_place, model_place
from hookql.configs.settings import (
    MAY_BE_EMPTY,
    SHORT,
    Count,
    DataName,
    File,
    ModelName,
    QuerySettings,
    Rules,
    Seconds,
)
from hookql.configs.variables import FromVariable
from hookql.errors import did_you_mean


class Wrong(ValueError):
    """A value of another type: what it should be, what it is, and what would help."""

    def __init__(self, wanted: str, value: Any, help: str | None = None) -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.value = value
        self.help = help


def converter(folder: Path | None) -> Converter:
    """A converter that converts nothing: a value has the type it should have, or is wrong."""
    made = Converter(detailed_validation=True, forbid_extra_keys=True)
    hook = made.register_structure_hook
    hook(str, lambda value, _: _text(value))
    hook(bool, lambda value, _: _truth(value))
    hook(Count, lambda value, _: _count(value))
    hook(Seconds, lambda value, _: _seconds(value))
    hook(Rules, lambda value, _: _rules(value))
    hook(File, lambda value, _: file_place(_named(value), folder))
    hook(DataName, lambda value, _: data_place(_named(value), folder))
    hook(ModelName, lambda value, _: model_place(_named(value), folder))
    kinds = made.register_structure_hook_factory
    kinds(has, lambda kind: _filled(kind, made))
    kinds(_of(Literal), lambda kind: lambda value, _: _one(value, kind))
    kinds(_of(dict), lambda kind: _named_values(kind, made))
    kinds(_of(list), lambda kind: _listed(kind, made))
    made.register_structure_hook_func(
        lambda kind: kind == (File | dict[str, File] | None), _files(made)
    )
    return made


def _of(origin: Any) -> Any:
    return lambda kind: get_origin(kind) is origin


def _filled(kind: type, converter: Converter) -> Any:
    """A settings class, from a mapping or from the text that is short for one."""
    fill: Any = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
    short = SHORT.get(kind)

    def structure(value: Any, _: Any) -> Any:
        if value is None and kind in MAY_BE_EMPTY:
            return kind()
        if isinstance(value, str) and short is not None:
            is_file = kind is QuerySettings and is_query_file(value)
            value = {"file" if is_file else short: value}
        if not isinstance(value, dict):
            wanted = f"a mapping, or a text that is its `{short}`" if short else "a mapping"
            raise Wrong(wanted, value)
        return fill(value, kind)

    return structure


def is_query_file(text: str) -> bool:
    """Whether a text is the name of a query file, as from Python: one line that ends in ``.hq``."""
    return text.strip().endswith(".hq") and "\n" not in text.strip()


def _named_values(kind: Any, converter: Converter) -> Any:
    fill = mapping_structure_factory(kind, converter)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise Wrong("a mapping from names", value)
        return fill(value, kind)

    return structure


def _listed(kind: Any, converter: Converter) -> Any:
    fill = list_structure_factory(kind, converter)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise Wrong("a list", value)
        return fill(value, kind)

    return structure


def _files(converter: Converter) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, dict):
            return converter.structure(value, dict[str, File])
        if not isinstance(value, str):
            raise Wrong("a folder, or a mapping from queries to files", value)
        return converter.structure(value, File)

    return structure


def _text(value: Any) -> str:
    if not isinstance(value, str):
        plain = isinstance(value, bool | int | float)
        raise Wrong("a text", value, "put it into quotation marks" if plain else None)
    return str(value)


def _named(value: Any) -> str:
    """A text that names something."""
    text = _text(value)
    if not text or "\0" in text:
        raise Wrong("a name", value)
    return text


def _truth(value: Any) -> bool:
    value = _read(value)
    if not isinstance(value, bool):
        words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
        word = words.get(value.lower()) if isinstance(value, str) else None
        raise Wrong("true or false", value, f"write `{word}`" if word else None)
    return value


def _rules(value: Any) -> str:
    """Rules of the optimiser in words; true is all of them."""
    value = _read(value)
    if isinstance(value, bool):
        return "all" if value else "none"
    if not isinstance(value, str):
        raise Wrong("true, false or a text such as `-sharing`", value)
    return str(value)


def _count(value: Any) -> int:
    value = _read(value)
    if type(value) is not int or not 1 <= value < 2**63:
        help = None
        if isinstance(value, str) and value.replace("_", "").replace(",", "").isdecimal():
            help = "write the digits alone, without quotation marks"
        raise Wrong("a whole number of 1 or more", value, help)
    return value


def _seconds(value: Any) -> float:
    value = _read(value)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise Wrong("a number of seconds above 0", value)
    return float(value)


def _read(value: Any) -> Any:
    """What a variable's text means where no text is wanted."""
    return scalar(value) if isinstance(value, FromVariable) else value


def _one(value: Any, kind: Any) -> Any:
    known = [str(each) for each in get_args(kind)]
    if value not in known:
        help = did_you_mean(value, known) if isinstance(value, str) else None
        raise Wrong(f"one of {', '.join(known)}", value, help)
    return str(value)
