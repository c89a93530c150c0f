"""The order of the floors, what is public, and what is not."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import probkit as pk

ROOT = Path(__file__).parents[1]

# A module imports what stands on a lower floor, or in its own package.
FLOORS = [
    {"validate", "settings", "record"},
    {"linalg"},
    {"gp", "distributions"},
    {"model"},
    {"method"},
    {"infer"},
    {"models"},
    {"fits"},
    {"datasets", "plots", "sklearn"},
    {""},
    {"demo"},
    {"__main__"},
]


def room(module: str) -> str:
    """`fits` for `probkit.fits.io`, a family for `probkit.models.moe`."""
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    return next(i for i, names in enumerate(FLOORS) if room(module) in names)


def imports():
    folders = {"probkit": ROOT / "probkit", "probkit.models": ROOT / "models"}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            if package == "probkit" and inside[0] == "models":
                continue
            module = ".".join([package, *(p for p in inside if p != "__init__")])
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                    "probkit"
                ):
                    for name in node.names:
                        whole = f"{node.module}.{name.name}"
                        yield module, whole if node.module == "probkit" else node.module
                elif isinstance(node, ast.Import):
                    for name in node.names:
                        if name.name.startswith("probkit"):
                            yield module, name.name


IMPORTS = sorted(set(imports()))


def test_there_are_imports():
    assert len(IMPORTS) > 100


# A paper's table uses the library as a user does, by its root, when it is asked for.
USERS = {
    "probkit.models.meta.niwmeta.table",
    "probkit.models.pde.gphm.table",
    "probkit.models.tucker.funbat.fits",
}


def test_imports_point_down():
    wrong = [
        f"{one} imports {other}"
        for one, other in IMPORTS
        if room(one) != room(other) and floor(other) >= floor(one)
        if not (one in USERS and other == "probkit")
    ]
    assert wrong == []


def test_families_do_not_import_each_other():
    inside = [(a.split("."), b.split(".")) for a, b in IMPORTS]
    families = {(a[2], b[2]) for a, b in inside if a[1:2] == b[1:2] == ["models"] and b[2:]}
    assert families
    assert all(a == b for a, b in families)


def test_tests_import_neither_each_other_nor_private_names():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith("test_"), path
                if node.module.startswith("probkit"):
                    private = [n.name for n in node.names if n.name.startswith("_")]
                    assert not private, (path, private)


def test_the_root_offers_what_is_public_and_no_more():
    assert set(dir(pk)) == {*pk.__all__, "__version__"}
    for name in dir(pk):
        assert getattr(pk, name) is not None


@pytest.mark.parametrize("name", ["gp", "meta", "moe", "pde", "sbl", "tucker"])
def test_a_family_says_what_is_public(name):
    family = getattr(pk.models, name)
    assert all(hasattr(family, public) for public in family.__all__)


def test_a_family_is_there_without_an_import_of_its_own():
    program = "import probkit as pk; print(pk.models.moe.Pairs, pk.plots.band, pk.datasets)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
