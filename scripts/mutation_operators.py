"""The changes that scripts/mutate.py makes: which, where, and a random sample of them.

Text for people is left alone (docstrings, messages of errors and logs, f-strings); so are annotations, decorators,
imports and assertions.
"""

import ast
import contextlib
import difflib
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,), ast.Add: (ast.Sub,), ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.Mult,), ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
}  # fmt: skip


class Mutant(NamedTuple):
    path: str
    line: int
    lines: tuple[int, ...]  # of the statement: tests that run any of them can notice; none: it runs at import
    operator: str
    begin: int
    end: int
    text: str


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Yield each operator's name, the node to replace, and what replaces it."""

    def edit(**fields: Any) -> Any:
        return type(node)(**{**dict(ast.iter_fields(node)), **fields})

    match node:
        case ast.Compare(ops=ops):
            for place, operator in enumerate(ops):
                for other in OPERATORS[type(operator)]:
                    yield "comparison", node, edit(ops=[*ops[:place], other(), *ops[place + 1 :]])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            for other in OPERATORS.get(type(op), ()):
                yield "and/or" if isinstance(node, ast.BoolOp) else "arithmetic", node, edit(op=other())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield "removed not or minus", node, operand
        case ast.Constant(value=bool(value)):
            yield "constant", node, ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield "constant", node, ast.Constant(value + 1)
            yield "constant", node, ast.Constant(value - 1)
        case ast.Slice(lower=lower, upper=upper):
            yield "slice", node, edit(lower=ast.BinOp(lower, ast.Add(), ast.Constant(1)) if lower else ast.Constant(1))
            yield "slice", node, edit(upper=ast.BinOp(upper, ast.Sub(), ast.Constant(1)) if upper else ast.Constant(-1))
        case ast.Call(func=func, args=args, keywords=keywords):
            plain = [argument for argument in args if not isinstance(argument, ast.Starred)]
            if len(plain) == len(args) > 1:
                yield "swapped arguments", node, edit(args=[args[1], args[0], *args[2:]])
            for keyword in keywords:
                if keyword.arg and not skipped(keyword):
                    yield "removed keyword", node, edit(keywords=[other for other in keywords if other is not keyword])
            if plain or isinstance(func, ast.Attribute):
                yield "dropped call", node, plain[0] if plain else func.value
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "negated condition", test, ast.UnaryOp(ast.Not(), test)
        case ast.Return(value=value) if value and ast.unparse(value) != "None":
            yield "returns None", node, ast.Return(ast.Constant(None))
        case ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Delete() | ast.Expr(value=ast.Call()):
            yield "dropped statement", node, ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "dropped statement", node, ast.Pass()
        case ast.FunctionDef(body=[*_, ast.Expr(value=ast.Call()) | ast.Assign() | ast.If() | ast.For() | ast.With()]):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if not any(isinstance(child, ast.Return | ast.Yield | ast.YieldFrom) for child in ast.walk(node)):
                yield "returns at once", body[0], ast.Return()


def skipped(node: ast.AST) -> bool:
    """Return whether nothing in the node is changed: text for people, assertions, imports, the start of a script."""
    match node:
        case ast.Expr(value=ast.Call() as call):
            return skipped(call)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name))):
            return name in {"log", "logger", "logging", "warnings"}
        case ast.If(test=test):
            return any(name in ast.unparse(test) for name in ("TYPE_CHECKING", "__name__"))
        case ast.keyword(arg="strict") | ast.Raise(exc=ast.Name(id="NotImplementedError")):  # assertions
            return True
    return isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom)


def candidates(path: str, source: str) -> list[Mutant]:
    """Return every mutant of a file; a few may not parse."""
    starts = [0]
    for text in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    found: list[Mutant] = []

    def span(statement: Any) -> tuple[int, ...]:
        body = getattr(statement, "body", None)  # of a compound statement, the lines of its head
        return tuple(
            range(statement.lineno, max(body[0].lineno, statement.lineno + 1) if body else statement.end_lineno + 1)
        )

    def visit(node: Any, lines: tuple[int, ...], in_function: bool) -> None:
        if skipped(node):
            return
        if isinstance(node, ast.stmt) and in_function:
            lines = span(node)
        old: Any
        for operator, old, new in changes(node):
            text = ast.unparse(ast.fix_missing_locations(new))
            if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp):
                text = f"({text})"
            place = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
            at = span(old) if operator == "returns at once" else lines
            found.append(Mutant(path, old.lineno, at, operator, *place, text))
        for field, value in ast.iter_fields(node):
            if field not in {"annotation", "returns", "decorator_list", "exc", "cause", "type_params"}:
                inside = in_function or (isinstance(node, ast.FunctionDef) and field == "body")
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        visit(child, lines, inside)

    visit(ast.parse(source), (), False)
    return found


def changed(mutant: Mutant, source: str) -> str | None:
    """Return the source with the mutant in it, or None where that does not parse or is the same program."""
    text = source.encode()
    result = (text[: mutant.begin] + mutant.text.encode() + text[mutant.end :]).decode()
    with contextlib.suppress(SyntaxError):
        return result if ast.dump(ast.parse(result)) != ast.dump(ast.parse(source)) else None
    return None


def sample(sources: dict[str, str], size: int, seed: int) -> list[Mutant]:
    """Draw lines with equal probability, of each an operator, and of these one mutant."""
    draw = random.Random(seed)
    by_line = defaultdict[tuple[str, int], dict[str, list[Mutant]]](lambda: defaultdict(list))
    for path, source in sorted(sources.items()):
        for mutant in candidates(path, source):
            by_line[path, mutant.line][mutant.operator].append(mutant)
    places = sorted(by_line)
    draw.shuffle(places)
    chosen: list[Mutant] = []
    while places and len(chosen) < size:
        mutant = draw.choice(draw.choice(list(by_line[places.pop()].values())))
        chosen += [mutant] if changed(mutant, sources[mutant.path]) else []
    return chosen


def name_of(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line} {mutant.operator} {mutant.begin}-{mutant.end} {mutant.text}"


def diff(mutant: Mutant, source: str) -> str:
    lines = [text.splitlines(keepends=True) for text in (source, changed(mutant, source) or "")]
    return "".join(difflib.unified_diff(*lines, f"a/{mutant.path}", f"b/{mutant.path}", n=2))
