"""Where the packages lie; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

# The families live in models/ and are imported as probkit.models. In a checkout the
# link probkit/models leads there; wheels and editable installs need the real folder,
# and source archives, which hold no link, need its packages named.
inside = find_packages(include=["probkit", "probkit.*"], exclude=["probkit.models*"])
families = ["probkit.models", *(f"probkit.models.{p}" for p in find_packages("models"))]

setup(
    packages=inside + families,
    package_dir={"probkit": "probkit", "probkit.models": "models"},
)
