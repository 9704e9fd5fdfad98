"""Syntax tree to canonical text: what it prints parses to the same tree again."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hookql.language import ast, words
from hookql.language.comments import Group, attach
from hookql.language.parser import parse, tokens

INDENT = "  "

# How tightly each kind of expression holds; an operand that holds looser gets parentheses.
_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _UNARY, _POWER, _POSTFIX, _ATOM = range(10)
_BINARY = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "**": _POWER}


def format_text(text: str, name: str = "<query>") -> str:
    """The canonical form of a query text, comments kept; `QueryError` where it does not parse."""
    program = parse(text, name)
    groups, tail = attach(text, list(tokens(text)))
    return _layout(program, groups, tail)


def format_program(program: ast.Program) -> str:
    """The canonical text: a clause a line, a blank line around captures, a newline at the end."""
    return _layout(program, [Group() for _ in program.statements], [])


def _layout(program: ast.Program, groups: list[Group], tail: list[str]) -> str:
    lines: list[str] = []
    previous: ast.Statement | None = None
    for statement, group in zip(program.statements, groups, strict=True):
        lets = isinstance(previous, ast.Let) and isinstance(statement, ast.Let)
        if previous is not None and (group.apart or not lets):
            lines.append("")
        lines += _statement_lines(statement, group)
        previous = statement
    return "\n".join([*lines, *([""] * bool(tail)), *tail]) + "\n"


def _statement_lines(statement: ast.Statement, comments: Group) -> Iterator[str]:
    for number, (keyword, text) in enumerate(clause_lines(statement)):
        indent = INDENT if number else ""
        for comment in comments.before.get(keyword, ()):
            yield indent + comment if comment else ""
        behind = comments.behind.get(keyword)
        yield indent + text + (f"  {behind}" if behind else "")
    for comment in comments.below:
        yield INDENT + comment


def format_statement(statement: ast.Statement) -> str:
    """One statement, its clauses on lines of their own, without a newline at the end."""
    return "\n".join(_statement_lines(statement, Group()))


def clause_lines(statement: ast.Statement) -> list[tuple[str, str]]:
    """The canonical lines of a statement: the keyword each begins with, and its text."""
    if isinstance(statement, ast.Let):
        return [("let", f"let {statement.name} = {format_expression(statement.value)}")]
    capture = statement
    origin = "from " + ", ".join(map(format_site, capture.sites))
    if capture.excepts:
        origin += " except " + ", ".join(map(format_except, capture.excepts))
    lines = [
        ("capture", "capture " + ", ".join(map(format_statistic, capture.statistics))),
        ("from", origin),
    ]
    if capture.where is not None:
        lines.append(("where", f"where {format_expression(capture.where)}"))
    if capture.by:
        lines.append(("by", "by " + ", ".join(map(format_expression, capture.by))))
    if capture.pool:
        lines.append(("pool", "pool " + ", ".join(name.id for name in capture.pool)))
    if capture.during is not None:
        arguments = format_arguments(capture.during.arguments)
        lines.append(("during", f"during {capture.during.phase}{arguments}"))
    if capture.alias is not None:
        lines.append(("as", f"as {capture.alias.id}"))
    if capture.into is not None:
        lines.append(("into", f"into {words.write_string(capture.into.value)}"))
    return lines


def format_statistic(statistic: ast.Statistic) -> str:
    """``top(x, k=10) as best``."""
    alias = f" as {statistic.alias}" if statistic.alias is not None else ""
    return f"{statistic.name}{format_arguments(statistic.arguments)}{alias}"


def format_arguments(arguments: tuple[ast.Argument, ...] | None) -> str:
    """``(x, k=10)``; nothing at all for None."""
    if arguments is None:
        return ""
    parts = [
        f"{a.name}={format_expression(a.value)}" if a.name else format_expression(a.value)
        for a in arguments
    ]
    return f"({', '.join(parts)})"


# --- sites --------------------------------------------------------------------------------------


def format_site(site: ast.Site) -> str:
    """``transformer.h[0:6].attn:input``."""
    if isinstance(site, ast.ModelSite):
        return site.end
    if isinstance(site, ast.CanonicalSite):
        index = format_index(site.index) if site.index is not None else ""
        return f"@{site.name}{index}{format_port(site.port)}"
    alone = site.isa is None and site.port is None
    if alone and site.path.steps in ((ast.NameStep("input"),), (ast.NameStep("output"),)):
        return f'"{format_path(site.path)}"'  # unquoted it is the model itself
    isa = f" isa {site.isa}" if site.isa is not None else ""
    return f"{format_path(site.path)}{isa}{format_port(site.port)}"


def format_except(site: ast.PathSite) -> str:
    """A path behind `except`, where `output` is a module like any other."""
    isa = f" isa {site.isa}" if site.isa is not None else ""
    return f"{format_path(site.path)}{isa}"


def format_port(port: ast.Port | None) -> str:
    """``:output[1]``; nothing at all for None."""
    if port is None:
        return ""
    element = port.element
    suffix = (
        f".{element}" if isinstance(element, str) else "" if element is None else f"[{element}]"
    )
    return f":{port.name}{suffix}"


def format_path(path: ast.Path) -> str:
    """``transformer.h[0:6].{attn,mlp}``; a name that cannot stand bare is quoted."""
    text = ""
    for step in path.steps:
        if isinstance(step, ast.IndexStep):
            text += format_index(step)
        else:
            text += ("." if text else "") + _step(step)
    # A keyword at the start is a module only where the path goes on.
    return f'"{text}"' if text in words.PATH_RESERVED else text


def _step(step: ast.NameStep | ast.GlobStep | ast.AnyDepth) -> str:
    if isinstance(step, ast.AnyDepth):
        return "**"
    if isinstance(step, ast.NameStep):
        return step.name if re.fullmatch(r"\w+", step.name) else words.write_string(step.name)
    alone = len(step.alternatives) == 1 and re.search(r"[*?]", step.alternatives[0])
    return step.alternatives[0] if alone else "{" + ",".join(step.alternatives) + "}"


def format_index(index: ast.IndexStep) -> str:
    """``[0:6]``; the slice of everything is ``[*]``."""
    if index.items == (ast.Slice(),):
        return "[*]"
    return f"[{', '.join(map(_selector, index.items))}]"


def _selector(item: int | ast.Slice) -> str:
    if isinstance(item, int):
        return str(item)
    start, stop, step = ("" if n is None else str(n) for n in (item.start, item.stop, item.step))
    return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"


# --- expressions --------------------------------------------------------------------------------


def format_expression(expression: ast.Expression) -> str:
    """An expression with the fewest parentheses that keep its meaning."""
    return _write(expression)[0]


def _operand(expression: ast.Expression, tightest: int) -> str:
    text, level = _write(expression)
    return text if level >= tightest else f"({text})"


def _write(expr: ast.Expression) -> tuple[str, int]:
    """The text of an expression and how tightly it holds."""
    match expr:
        case ast.Number():
            return words.write_number(expr.value), _ATOM
        case ast.String():
            return words.write_string(expr.value), _ATOM
        case ast.Regex():
            return words.write_regex(expr.pattern), _ATOM
        case ast.Name():
            return expr.id, _ATOM
        case ast.Row():
            bare = re.fullmatch(r"\w+", expr.column)
            return f"row.{expr.column if bare else words.write_string(expr.column)}", _ATOM
        case ast.Call():
            return f"{expr.function}{format_arguments(expr.arguments)}", _ATOM
        case ast.Subscript():
            return f"{_operand(expr.value, _POSTFIX)}{_subscript(expr)}", _POSTFIX
        case ast.Unary():
            return f"{expr.op}{_operand(expr.operand, _UNARY)}", _UNARY
        case ast.Binary():
            return _binary(expr)
        case ast.Compare():
            first, *rest = (_operand(operand, _SUM) for operand in expr.operands)
            pairs = zip(expr.ops, rest, strict=True)
            return first + "".join(f" {op} {operand}" for op, operand in pairs), _COMPARE
        case ast.Membership():
            members = ", ".join(_operand(member, _SUM) for member in expr.members)
            word = "not in" if expr.negated else "in"
            return f"{_operand(expr.value, _SUM)} {word} {{{members}}}", _COMPARE
        case ast.Match():
            return f"{_operand(expr.value, _SUM)} ~ {_write(expr.regex)[0]}", _COMPARE
        case ast.Within():
            return f"within {_write(expr.pattern)[0]}", _COMPARE
        case ast.Not():
            return f"not {_operand(expr.operand, _NOT)}", _NOT
        case ast.And():
            return " and ".join(_operand(o, _NOT) for o in expr.operands), _AND
        case ast.Or():
            return " or ".join(_operand(o, _AND) for o in expr.operands), _OR


def _binary(expr: ast.Binary) -> tuple[str, int]:
    level = _BINARY[expr.op]
    if expr.op == "**":  # leans right: `a ** b ** c` is `a ** (b ** c)`, and `2 ** -1` is fine
        left, right = _operand(expr.left, _POSTFIX), _operand(expr.right, _UNARY)
    else:
        left, right = _operand(expr.left, level), _operand(expr.right, level + 1)
    return f"{left} {expr.op} {right}", level


def _subscript(expr: ast.Subscript) -> str:
    index = expr.index
    dimension = f"{expr.dimension}=" if expr.dimension is not None else ""
    if isinstance(index, tuple):
        return f"[{dimension}[{', '.join(map(str, index))}]]"
    return f"[{dimension}{_selector(index)}]"
