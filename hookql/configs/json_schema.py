"""The JSON Schema of configs, made from the classes of the settings; for editors."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from attrs import NOTHING, fields, has

from hookql.configs.settings import (
    MAY_BE_EMPTY,
    SHORT,
    Count,
    DataName,
    DataSettings,
    File,
    ModelName,
    Rules,
    Seconds,
    Settings,
)

_VARIABLE = {"type": "string", "pattern": r"^\$\{[^{}]*\}$"}
_NAMED = {"type": "string", "minLength": 1}
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    NoneType: {"type": "null"},
    bool: {"anyOf": [{"type": "boolean"}, _VARIABLE]},
    Count: {"anyOf": [{"type": "integer", "minimum": 1}, _VARIABLE]},
    Seconds: {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _VARIABLE]},
    Rules: {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
    File: _NAMED,
    ModelName: _NAMED,
    DataName: _NAMED,
}


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) that every config fits; what fits may still not go together.

    It does not say which names queries can bind, nor that a query has either a text or a file; and
    to JSON Schema 2.0 is a whole number, which is refused here.
    """
    classes: dict[str, Any] = {}
    whole = _class(Settings, classes)
    whole["properties"] = {
        "$schema": {"type": "string", "description": "where this schema is, for editors"},
        **whole["properties"],
    }
    whole["properties"]["queries"] |= {
        "minProperties": 1,
        "propertyNames": {"pattern": r"^\w[\w.-]{0,99}$"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A HookQL analysis",
        **whole,
        "$defs": classes,
    }


def _class(kind: Any, classes: dict[str, Any]) -> dict[str, Any]:
    """The schema of one class; those of the classes in it go into ``classes``."""
    types = get_type_hints(kind)
    properties: dict[str, Any] = {}
    for each in fields(kind):
        properties[each.name] = {
            "description": each.metadata["says"],
            **_type(types[each.name], classes),
        }
        if isinstance(each.default, str | bool):
            properties[each.name]["default"] = each.default
    both = {"path": {"type": "string"}, "texts": {"type": "array"}}
    apart = {"not": {"properties": both, "required": list(both)}}
    return {
        **(apart if kind is DataSettings else {}),
        "description": (kind.__doc__ or "").partition("\n")[0],
        "type": "object",
        "properties": properties,
        "required": [each.name for each in fields(kind) if each.default is NOTHING],
        "additionalProperties": False,
    }


def _type(kind: Any, classes: dict[str, Any]) -> dict[str, Any]:
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"anyOf": [{"enum": list(arguments)}, {"type": "string", "pattern": r"\$\{"}]}
    if origin is list:
        return {"type": "array", "minItems": 1, "items": _type(arguments[0], classes)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], classes)}
    if has(kind):
        name = kind.__name__
        if name not in classes:
            classes[name] = {}
            classes[name] = _class(kind, classes)
        reference = {"$ref": f"#/$defs/{name}"}
        short = _PLAIN[str] if SHORT.get(kind) == "query" else _NAMED  # an empty query is a text
        forms = [short, reference] if kind in SHORT else [reference]
        forms += [_PLAIN[NoneType]] if kind in MAY_BE_EMPTY else []
        return {"anyOf": forms} if len(forms) > 1 else reference
    assert isinstance(kind, UnionType) or origin is not None, kind
    return {"anyOf": [_type(each, classes) for each in arguments]}
