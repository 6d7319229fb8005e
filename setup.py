"""Ship the recipes of hub_configs/ as fun_transformer/hub_configs; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fun_transformer", "fun_transformer.*"]), "fun_transformer.hub_configs"],
    package_dir={"fun_transformer.hub_configs": "hub_configs"},
)
