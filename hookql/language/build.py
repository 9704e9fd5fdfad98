"""Parse tree to syntax tree.

The parse tree is duck-typed (``data``, ``children``, ``meta``), so that only `parser` knows lark.
What the grammar lets pass but has no meaning (an unknown escape, a clause given twice) is
collected in `problems` and the tree is built on with a stand-in, so that all of it is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hookql.errors import Diagnostic, Source, Span
from hookql.language import ast, words

T = TypeVar("T")
D = TypeVar("D")
Tree = Any
"""A node of the parse tree: a rule's `Tree` or a `Token`, which is a `str`."""

MOST_ALTERNATIVES = 10_000
"""Names that the braces of a whole query may stand for: ``{a,b}{c,d}`` stands for four."""

INFIX: dict[str, type[ast.And] | type[ast.Or]] = {"or": ast.Or, "and": ast.And}


def span(tree: Tree) -> Span:
    """Where a rule's tree or a token stands."""
    place = tree if isinstance(tree, str) else tree.meta
    return Span(getattr(place, "start_pos", 0), getattr(place, "end_pos", 0))


class Builder:
    """Builds one query's syntax tree; a method for each rule, called by the rule's name."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Diagnostic] = []
        self.alternatives = 0  # of all globs so far

    def program(self, tree: Tree) -> ast.Program:
        """The whole query."""
        statements = tuple(
            self.let(child) if child.data == "let" else self.capture(child)
            for child in tree.children
        )
        return ast.Program(statements, self.source, span=span(tree))

    def problem(self, code: str, message: str, at: Tree, help: str | None = None) -> None:
        self.problems.append(Diagnostic(code, message, span(at), self.source, help))

    def read(self, reader: Callable[[str], T], token: Tree, otherwise: D) -> T | D:
        """A token's value; a stand-in where it has none, which is reported."""
        try:
            return reader(str(token))
        except words.Misspelt as error:
            self.problem(error.code, error.message, token, error.help)
            return otherwise

    # --- statements and clauses ------------------------------------------------------------------

    def let(self, tree: Tree) -> ast.Let:
        name, value = tree.children
        return ast.Let(str(name), self.expression(value), span=span(tree))

    def capture(self, tree: Tree) -> ast.Capture:
        statistics, origin, *clauses = tree.children
        fields: dict[str, Any] = {}
        for clause in clauses:
            name = str(clause.data)
            if name in fields:
                self.problem(
                    "duplicate-clause",
                    f"this capture has `{name}` already",
                    clause,
                    "join the conditions with `and`" if name == "where" else None,
                )
            else:
                fields[name] = self.clause(name, clause)
        if "as" in fields:
            fields["alias"] = fields.pop("as")
        sites, *excepts = origin.children
        return ast.Capture(
            tuple(self.statistic(child) for child in statistics.children),
            tuple(self.site(child) for child in sites.children),
            tuple(self.path_site(child) for group in excepts for child in group.children),
            span=span(tree),
            **fields,
        )

    def clause(self, name: str, tree: Tree) -> Any:
        if name in ("by", "pool"):
            return tuple(self.expression(child) for child in tree.children)
        if name == "during":
            phase, *rest = tree.children
            arguments = self.arguments(rest[0]) if rest else None
            return ast.During(str(phase), arguments, span=span(tree))
        return self.expression(tree.children[0])

    def statistic(self, tree: Tree) -> ast.Statistic:
        name, *rest = tree.children
        parts = {str(child.data): child for child in rest}
        return ast.Statistic(
            str(name),
            self.arguments(parts["arguments"]) if "arguments" in parts else None,
            str(parts["alias"].children[0]) if "alias" in parts else None,
            span=span(tree),
        )

    def arguments(self, tree: Tree) -> tuple[ast.Argument, ...]:
        return tuple(
            ast.Argument(
                self.expression(child.children[-1]),
                str(child.children[0]) if len(child.children) == 2 else None,
                span=span(child),
            )
            for child in tree.children
        )

    # --- sites -----------------------------------------------------------------------------------

    def site(self, tree: Tree) -> ast.Site:
        if tree.data == "canonical_site":
            token, *rest = tree.children
            parts = {str(child.data): child for child in rest}
            index = self.index(parts["index"]) if "index" in parts else None
            return ast.CanonicalSite(token[1:], index, self.port(parts), span=span(tree))
        path = tree.children[0].children
        # Alone and unquoted these words are the model itself; `output.dense` is a path.
        if len(tree.children) == 1 and len(path) == 1 and path[0] in ("input", "output"):
            return ast.ModelSite(str(path[0]), span=span(tree))
        return self.path_site(tree)

    def path_site(self, tree: Tree) -> ast.PathSite:
        path, *rest = tree.children
        parts = {str(child.data): child for child in rest}
        isa = str(parts["isa"].children[0]) if "isa" in parts else None
        return ast.PathSite(self.path(path), isa, self.port(parts), span=span(tree))

    def port(self, parts: dict[str, Tree]) -> ast.Port | None:
        if "port" not in parts:
            return None
        tree = parts["port"]
        name, *rest = tree.children
        element: int | str | None = None
        if rest:
            element = str(rest[0]) if isinstance(rest[0], str) else self.integer(rest[0])
        return ast.Port(str(name), element, span=span(tree))

    def path(self, tree: Tree) -> ast.Path:
        steps: list[ast.Step] = []
        for child in tree.children:
            if not isinstance(child, str):
                steps.append(self.index(child))
            elif child.startswith('"'):
                names = self.read(words.read_quoted_step, child, ["?"])
                steps += [ast.NameStep(name, span=span(child)) for name in names]
            else:
                steps.append(self.step(child))
        return ast.Path(tuple(steps), span=span(tree))

    def step(self, token: Tree) -> ast.Step:
        read = self.read(words.read_step, token, "?")
        if read is None:
            return ast.AnyDepth(span=span(token))
        if isinstance(read, str):
            return ast.NameStep(read, span=span(token))
        self.alternatives += len(read)
        if self.alternatives > MOST_ALTERNATIVES:
            message = f"a query has at most {MOST_ALTERNATIVES:,} alternatives in braces"
            self.problem("too-many", message, token)
            return ast.NameStep("?", span=span(token))
        return ast.GlobStep(read, span=span(token))

    def index(self, tree: Tree) -> ast.IndexStep:
        items = tuple(
            ast.Slice(span=span(child)) if isinstance(child, str) else self.selector(child)
            for child in tree.children
        )
        return ast.IndexStep(items, span=span(tree))

    def selector(self, tree: Tree) -> int | ast.Slice:
        return self.slice(tree) if tree.data == "slice" else self.integer(tree)

    def integer(self, tree: Tree) -> int:
        *minus, digits = tree.children
        value = self.read(words.read_integer, digits, 0)
        return -value if minus else value

    def slice(self, tree: Tree) -> ast.Slice:
        parts: list[int | None] = [None]
        for child in tree.children:
            if isinstance(child, str):
                parts.append(None)
            else:
                parts[-1] = self.integer(child)
        parts += [None] * (3 - len(parts))
        if parts[2] == 0:
            self.problem("bad-index", "a slice's step is not 0", tree)
        return ast.Slice(*parts, span=span(tree))

    # --- expressions -----------------------------------------------------------------------------

    def expression(self, tree: Tree) -> Any:
        """Any expression; its depth was checked before, so that recursion is safe."""
        kind, children = str(tree.data), tree.children
        method = getattr(self, f"_{kind}", None)
        if method is not None:
            return method(tree)
        if kind in INFIX:
            return self.flat(INFIX[kind], tree)
        if kind == "parentheses":
            return self.expression(children[0])
        if kind == "not":
            return ast.Not(self.expression(children[0]), span=span(tree))
        if kind == "negative":
            return ast.Unary("-", self.expression(children[1]), span=span(tree))
        if kind == "match":
            value, regex = map(self.expression, children)
            return ast.Match(value, regex, span=span(tree))
        if kind == "within":
            return ast.Within(self.expression(children[0]), span=span(tree))
        assert kind in ("in", "not_in"), kind
        value, *members = map(self.expression, children)
        return ast.Membership(value, tuple(members), kind == "not_in", span=span(tree))

    def flat(self, node: type[ast.And] | type[ast.Or], tree: Tree) -> ast.And | ast.Or:
        """`(a and b) and c` is `a and b and c`."""
        operands: list[ast.Expression] = []
        for operand in map(self.expression, tree.children):
            operands += operand.operands if isinstance(operand, node) else (operand,)
        return node(tuple(operands), span=span(tree))

    def _number(self, tree: Tree) -> ast.Number:
        value = self.read(words.read_number, tree.children[0], 0)
        return ast.Number(value, span=span(tree))

    def _string(self, tree: Tree) -> ast.String:
        return ast.String(self.read(words.read_string, tree.children[0], ""), span=span(tree))

    def _regex(self, tree: Tree) -> ast.Regex:
        return ast.Regex(words.read_regex(tree.children[0]), span=span(tree))

    def _name(self, tree: Tree) -> ast.Name:
        return ast.Name(str(tree.children[0]), span=span(tree))

    def _row(self, tree: Tree) -> ast.Row:
        name, column = tree.children
        if name != "row":
            self.problem("bad-name", f"only `row` has columns, `{name}` has none", name)
        quoted = column.startswith('"')
        text = self.read(words.read_string, column, "") if quoted else str(column)
        return ast.Row(text, span=span(tree))

    def _call(self, tree: Tree) -> ast.Call:
        name, arguments = tree.children
        return ast.Call(str(name), self.arguments(arguments), span=span(tree))

    def _compare(self, tree: Tree) -> ast.Compare:
        ops = tuple(str(op) for op in tree.children[1::2])
        operands = tuple(map(self.expression, tree.children[::2]))
        return ast.Compare(ops, operands, span=span(tree))

    def _binary(self, tree: Tree) -> ast.Binary:
        left, op, right = tree.children
        return ast.Binary(str(op), self.expression(left), self.expression(right), span=span(tree))

    def _subscript(self, tree: Tree) -> ast.Subscript:
        value, *name, selector = tree.children
        index: int | ast.Slice | tuple[int, ...]
        if selector.data == "integers":
            index = tuple(map(self.integer, selector.children))
        else:
            index = self.selector(selector)
        return ast.Subscript(
            self.expression(value), index, str(name[0]) if name else None, span=span(tree)
        )
