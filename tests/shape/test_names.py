"""One meaning per word, one sentence per test, and sizes that a reader can hold."""

import ast
import importlib
import pkgutil
import re
import types

import pytest

import mltraq_ds

# House style: words that say nothing, or that have another meaning elsewhere.
BANNED = {"utils", "util", "helper", "helpers", "manager", "misc", "common", "handler", "serializer", "dump", "payload"}


def _words(name):
    return set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", name).lower()))


def _submodules():
    return [info.name for info in pkgutil.walk_packages(mltraq_ds.__path__, "mltraq_ds.")]


def test_public_names_exist():
    """Everything in `__all__` can be imported, and dir() shows it."""
    for name in mltraq_ds.__all__:
        assert getattr(mltraq_ds, name) is not None
        assert name in dir(mltraq_ds)
    assert len(set(mltraq_ds.__all__)) == len(mltraq_ds.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = mltraq_ds.Nothing


@pytest.mark.parametrize("package", ["mltraq_ds", "mltraq_ds.store"])
def test_type_checkers_see_the_same_names(modules, package):
    """The table of lazy names and the block for type checkers say the same."""
    block = next(node for node in modules[package].body if isinstance(node, ast.If))
    seen = {alias.asname: f"{node.module}.{alias.name}" for node in block.body for alias in node.names}
    module = importlib.import_module(package)
    homes = module._HOMES
    assert seen == {n: home if home == f"{package}.{n}" else f"{home}.{n}" for n, home in homes.items()}
    assert [name for name in module.__all__ if name != "__version__"] == list(homes)
    assert set(dir(module)) == set(module.__all__)


def test_all_lists_are_true():
    """Each module's `__all__` names what it has."""
    for name in _submodules():
        module = importlib.import_module(name)
        assert [n for n in getattr(module, "__all__", ()) if not hasattr(module, n)] == [], name


def test_no_submodule_hides_a_public_object():
    """No submodule has the name of a public object of its package, or importing one would replace the other."""
    for package in ["mltraq_ds", *_submodules()]:
        module = importlib.import_module(package)
        below = {info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))}
        public = set(getattr(module, "__all__", ()))
        hidden = [n for n in below & public if not isinstance(getattr(module, n), types.ModuleType)]
        assert hidden == [], package


def test_no_empty_words(modules):
    """No module and no public name uses a word that the house style bans."""
    names = {part for name in modules for part in name.split(".")}
    for name in _submodules():
        names.update(getattr(importlib.import_module(name), "__all__", ()))
    assert [name for name in names if _words(name) & BANNED] == []


def test_sizes(modules, root):
    """No module is beyond 300 lines and no function beyond 60: split, or explain."""
    large = []
    for name, tree in modules.items():
        lines = max((node.end_lineno or 0 for node in ast.walk(tree) if hasattr(node, "end_lineno")), default=0)
        large += [f"{name}: {lines} lines"] if lines > 300 else []
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                if node.end_lineno - start > 60:
                    large.append(f"{name}.{node.name}: {node.end_lineno - start} lines")
    assert large == []


def test_every_test_has_a_sentence(root):
    """Every test says in one sentence which property it shows."""
    silent = []
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test")
            if is_test and not (ast.get_docstring(node) or "").endswith("."):
                silent.append(f"{path.relative_to(root)}::{node.name}")
    assert silent == []


def test_errors_tree(modules):
    """The tree in the docstring of `errors` is the real one: parents, built-in bases, and nothing left out."""
    from mltraq_ds import errors

    drawn = {}
    parents = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+(?:Error|Warning))(?: \((\w+)\))?", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth] = found[2]
            drawn[found[2]] = {parents.get(depth - 1) if depth else None, found[3]} - {None}
    real = {}
    for name in errors.__all__:
        bases = {base.__name__ for base in getattr(errors, name).__bases__}
        real[name] = bases - {"Exception"}
    assert drawn == real
    assert set(errors.__all__) == {n for n in vars(errors) if isinstance(getattr(errors, n), type)}
