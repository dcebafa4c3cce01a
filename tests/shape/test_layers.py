"""Imports go down only, nothing goes in circles, and each third party has one home."""

import ast
import configparser
import graphlib
import re
import sys

import pytest

# The longest prefix of a module's name decides. (layer, order inside the layer): imports go to lower pairs, or to equal
# ones as long as nothing goes in circles.
LAYERS = {
    "mltraq_ds.errors": (0, 0),
    "mltraq_ds.ids": (0, 0),
    "mltraq_ds.reference": (0, 0),
    "mltraq_ds.bunch": (0, 0),
    "mltraq_ds.option_environment": (0, 0),
    "mltraq_ds.option_files": (0, 0),
    "mltraq_ds.option_layer": (0, 0),
    "mltraq_ds.option_lines": (0, 0),
    "mltraq_ds.option_table": (0, 0),
    "mltraq_ds.option_writing": (0, 0),
    "mltraq_ds.resolved": (0, 0),
    "mltraq_ds.settings": (0, 0),
    "mltraq_ds.storage": (1, 0),
    "mltraq_ds.codecs": (1, 1),
    "mltraq_ds.blob": (1, 2),
    "mltraq_ds.cached": (1, 3),
    "mltraq_ds.pointed": (1, 3),
    "mltraq_ds.anywhere": (1, 4),
    "mltraq_ds.objects": (2, 0),
    "mltraq_ds.place": (3, 0),
    "mltraq_ds.lazy": (3, 0),
    "mltraq_ds.datastore": (3, 0),
    "mltraq_ds.datastore_io": (3, 0),
    "mltraq_ds.store": (3, 0),
    "mltraq_ds.orm": (4, 0),
    "mltraq_ds.store.artifact_check": (5, 0),
    "mltraq_ds.store.artifact_rows": (5, 0),
    "mltraq_ds.store.artifact_sweep": (5, 0),
    "mltraq_ds.store.claims": (5, 0),
    "mltraq_ds.store.commit": (5, 0),
    "mltraq_ds.store.deletion": (5, 0),
    "mltraq_ds.store.recovery": (5, 0),
    "mltraq_ds.store.rows": (5, 0),
    "mltraq_ds.store.follow_up": (5, 0),
    "mltraq_ds.store.indexed": (5, 0),
    "mltraq_ds.store.indexed_check": (5, 0),
    "mltraq_ds.store.indexed_config": (5, 0),
    "mltraq_ds.store.indexed_puts": (5, 0),
    "mltraq_ds.store.single_index": (5, 0),
    "mltraq_ds.store.document_rows": (5, 0),
    "mltraq_ds.store.index_lag": (5, 0),
    "mltraq_ds.store.index_link": (5, 0),
    "mltraq_ds.store.index_marks": (5, 0),
    "mltraq_ds.store.indexed_reading": (5, 0),
    "mltraq_ds.store.single_check": (5, 0),
    "mltraq_ds.store.transfer_verbs": (5, 0),
    "mltraq_ds.store.validation": (5, 0),
    "mltraq_ds.store.transfer": (5, 0),
    "mltraq_ds.store.maintenance": (5, 0),
    "mltraq_ds.store.checking": (5, 0),
    "mltraq_ds.store.experiment_check": (5, 0),
    "mltraq_ds.store.identity": (5, 0),
    "mltraq_ds.store.index_check": (5, 0),
    "mltraq_ds.store.rebuilding": (5, 0),
    "mltraq_ds.store.moving": (5, 0),
    "mltraq_ds.store.sweep_leftovers": (5, 0),
    "mltraq_ds.store.sweeping": (5, 0),
    "mltraq_ds.store.saving": (5, 0),
    "mltraq_ds.store.version_deletion": (5, 0),
    "mltraq_ds.orm.column": (5, 0),
    "mltraq_ds.tracking": (6, 0),
    "mltraq_ds.artifacts": (7, 0),
    "mltraq_ds.lake": (7, 0),
    "mltraq_ds.testing": (7, 0),
    "mltraq_ds.cli": (8, 0),
}

# Import name to the only modules that may use it.
HOMES = {
    "azure": ["mltraq_ds.storage.clients.azure"],
    "backports": ["mltraq_ds.blob", "mltraq_ds.codecs"],
    "dask": ["mltraq_ds.tracking"],
    "dateutil": ["mltraq_ds.codecs"],
    "filelock": ["mltraq_ds.store", "mltraq_ds.storage"],
    "fsspec": ["mltraq_ds.storage"],
    "google_crc32c": ["mltraq_ds.storage"],
    "joblib": ["mltraq_ds.tracking.execution"],
    "mlflow": ["mltraq_ds.artifacts.mlflow", "mltraq_ds.artifacts.mlflow_calls"],
    "msgpack": ["mltraq_ds.codecs", "mltraq_ds.blob"],
    "numpy": ["mltraq_ds.codecs", "mltraq_ds.store", "mltraq_ds.tracking", "mltraq_ds.cli", "mltraq_ds.testing"],
    "botocore": ["mltraq_ds.storage.obstore_options"],
    "obstore": ["mltraq_ds.storage"],
    "orjson": ["mltraq_ds.store.texts"],
    "pandas": [
        "mltraq_ds.codecs",
        "mltraq_ds.lake.report",
        "mltraq_ds.store.report",
        "mltraq_ds.store.results",
        "mltraq_ds.orm.database",
        "mltraq_ds.tracking",
        "mltraq_ds.artifacts",
    ],
    "platformdirs": ["mltraq_ds.option_files", "mltraq_ds.store.config"],
    "polars": ["mltraq_ds.codecs"],
    "pyarrow": ["mltraq_ds.codecs", "mltraq_ds.store.results"],
    "pytest": ["mltraq_ds.testing"],
    "pytz": ["mltraq_ds.codecs"],
    "ray": ["mltraq_ds.tracking"],
    "rich": ["mltraq_ds.cli"],
    "sklearn": ["mltraq_ds.cli"],
    "sqlalchemy": ["mltraq_ds.orm", "mltraq_ds.store.commit"],
    "stamina": ["mltraq_ds.storage.requests"],
    "torch": ["mltraq_ds.codecs"],
    "tqdm": ["mltraq_ds.lake.work", "mltraq_ds.store.results", "mltraq_ds.tracking"],
    "typer": ["mltraq_ds.cli"],
    "uuid6": ["mltraq_ds.ids"],
    "zlib_ng": ["mltraq_ds.blob", "mltraq_ds.storage"],
}

# These only name what is public, and load it on first use.
NAMING = {"mltraq_ds", "mltraq_ds.store"}

# Where the name to import differs from the name to install.
DISTRIBUTIONS = {
    "azure": "azure-storage-blob",
    "backports": "backports.zstd",
    "sklearn": "scikit-learn",
    "zlib_ng": "zlib-ng",
    "botocore": "s3fs",  # which brings it
    "google_crc32c": "gcsfs",  # likewise
}

# These we only meet if the user brings them: their values, or their tests.
BROUGHT = {"dateutil", "polars", "pytest", "pytz"}

# `compression` joined the standard library in Python 3.14.
KNOWN = sys.stdlib_module_names | {"mltraq_ds", "compression"}


def _is_below(module, prefix):
    return module == prefix or module.startswith(f"{prefix}.")


def _layer(module):
    prefixes = [prefix for prefix in LAYERS if _is_below(module, prefix)]
    return LAYERS[max(prefixes, key=len)] if prefixes else None


def _imports(tree, modules):
    """Yield all modules that a module imports, anywhere in it; `from package import submodule` is the submodule."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else node.module
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


@pytest.fixture(scope="module")
def imports(modules):
    """Return what each module imports; packages that only name what is public are left out."""
    return {name: set(_imports(tree, modules)) for name, tree in modules.items() if name not in NAMING}


@pytest.fixture(scope="module")
def own(imports):
    """Return which of our modules each module imports; all may read the version."""
    return {name: {i for i in found if i.startswith("mltraq_ds.")} for name, found in imports.items()}


def test_every_module_has_a_layer(imports):
    """A new module gets a place in the table before it gets users."""
    assert [name for name in imports if _layer(name) is None] == []


def test_imports_go_down_only(own):
    """No module imports one of a higher layer, not even inside a function or for type checkers."""
    upward = [
        f"{name} {_layer(name)} imports {target} {_layer(target)}"
        for name, targets in own.items()
        for target in targets
        if _layer(target) > _layer(name)
    ]
    assert upward == []


def test_no_import_goes_in_circles(own):
    """No chain of imports leads back to where it started."""
    try:
        graphlib.TopologicalSorter(own).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_third_parties_stay_at_home(imports):
    """Each third-party library is imported only where the table says; one that it does not know is an error."""
    astray = [
        f"{name} imports {target}"
        for name, targets in imports.items()
        for target in targets
        if (party := target.partition(".")[0]) not in KNOWN
        and not any(_is_below(name, home) for home in HOMES.get(party, []))
    ]
    assert astray == []


def test_third_parties_are_declared(imports, root):
    """Whatever is imported can be installed by a dependency or an extra of ours."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    extras = (lines for extra, lines in config["options.extras_require"].items() if extra not in ("test", "all"))
    declared = set(re.findall(r"^[\w.-]+", "\n".join([config["options"]["install_requires"], *extras]), re.MULTILINE))
    parties = {target.partition(".")[0] for targets in imports.values() for target in targets}
    third = parties - KNOWN - BROUGHT
    assert {DISTRIBUTIONS.get(party, party) for party in third} <= declared


def test_files_need_no_sql(own):
    """The index depends on the truth, never the reverse: storing files imports nothing of SQL."""
    sql = [n for n, ts in own.items() if _layer(n) < (4, 0) and any(_is_below(t, "mltraq_ds.orm") for t in ts)]
    assert sql == []
