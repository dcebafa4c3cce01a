"""Secrets that stand in a source as literals: those that are given to a name which tells that it is a secret."""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Iterator

from mltraq_ds.storage.places import is_secret_name

__all__ = ["without_secret_literals"]

# Where Python's parser does not help (magics of notebooks): a name, and a literal behind "=" or ":".
_GIVEN = re.compile(
    r"""([\w-]+)(["']?\s*\]?\s*[=:]\s*)([rRbBfFuU]{0,2})(?:"[^"\n]*"|'[^'\n]*')""",
)
_PARSER = threading.Lock()  # Python 3.11's parser makes trees in one thread at a time; else SystemError
_LOOKS_UP = {"get", "getenv", "get_password", "getpass", "input", "open", "Path", "prompt"}  # not the secret, its name


def without_secret_literals(source: str) -> str:
    r"""Return a source with ``***`` in place of secret literals; everything else stays, also the number of lines.

    Examples
    --------
    >>> without_secret_literals("connect('x', password='hunter2')\n")
    'connect(\'x\', password="***")\n'
    """
    try:
        with _PARSER, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its escapes: the user has seen them
            tree = ast.parse(source)
        data = bytearray(source, "utf-8")
    except (SyntaxError, SystemError, ValueError, RecursionError, MemoryError):
        return _GIVEN.sub(_hidden, source)
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {
        (starts[node.lineno - 1] + node.col_offset, starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0))
        for value in _values(tree)
        for node in _literals(value)
    }
    outer: list[tuple[int, int]] = []
    for start, end in sorted(found, key=lambda place: (place[0], -place[1])):
        if not outer or start >= outer[-1][1]:  # else it is inside of an f-string that goes as a whole
            outer.append((start, end))
    for start, end in reversed(outer):
        lines = data.count(b"\n", start, end)
        prefix = b"b" if data[start] in b"bB" else b""
        quote = b'"""' if lines else b'"'
        data[start:end] = prefix + quote + b"***" + b"\n" * lines + quote
    return data.decode()


def _hidden(match: re.Match[str]) -> str:
    return f'{match[1]}{match[2]}{match[3]}"***"' if is_secret_name(match[1]) else match[0]


def _values(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what is given to names of secrets: assigned, as an argument, in a dictionary, behind the name in a call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(map(_is_secret, node.targets)):
            yield node.value
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and _is_secret(node.target):
            yield from [node.value] if node.value is not None else []
        elif isinstance(node, ast.keyword) and node.arg is not None and is_secret_name(node.arg):
            yield node.value
        elif isinstance(node, ast.Dict):
            yield from (value for key, value in zip(node.keys, node.values, strict=True) if _is_secret(key))
        elif isinstance(node, ast.Call) and len(node.args) > 1 and _is_secret_text(node.args[0]):
            yield from node.args[1:]  # os.environ.setdefault("…_TOKEN", "…")
        elif isinstance(node, ast.arguments):
            named = [*node.posonlyargs, *node.args]
            pairs = [*zip(reversed(named), reversed(node.defaults), strict=False)]
            pairs += [(one, given) for one, given in zip(node.kwonlyargs, node.kw_defaults, strict=True) if given]
            yield from (given for one, given in pairs if is_secret_name(one.arg))


def _is_secret(target: ast.AST | None) -> bool:
    if isinstance(target, ast.Subscript):
        return _is_secret_text(target.slice)
    if isinstance(target, ast.Tuple | ast.List):
        return any(map(_is_secret, target.elts))
    name = getattr(target, "id", None) or getattr(target, "attr", None)
    return is_secret_name(name) if isinstance(name, str) else _is_secret_text(target)


def _is_secret_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and is_secret_name(node.value)


def _literals(value: ast.expr) -> Iterator[ast.expr]:
    """Yield the texts that a value is made of, but not the names under which something else has it."""
    if isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str | bytes)):
        yield value
        return
    inner: list[ast.expr] = []
    if isinstance(value, ast.Call):
        name = getattr(value.func, "id", None) or getattr(value.func, "attr", "")
        inner = [] if name in _LOOKS_UP else [*value.args, *(one.value for one in value.keywords)]
        inner += [value.func.value] if isinstance(value.func, ast.Attribute) else []
    elif isinstance(value, ast.Dict):
        inner = value.values
    elif not isinstance(value, ast.Subscript | ast.Lambda):
        inner = [node for node in ast.iter_child_nodes(value) if isinstance(node, ast.expr)]
    for node in inner:
        yield from _literals(node)
