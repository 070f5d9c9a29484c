"""What pyproject.toml cannot say: folders of the repository that are data of the package."""

from setuptools import find_packages, setup

# Kept at the top level, where readers of the repository look for them; see core/shipped.py.
DATA = {"shiftbench.suites": "suites", "shiftbench.published": "results/published"}

setup(
    packages=[*find_packages("benchmark"), *DATA],
    package_dir={"": "benchmark", **DATA},
    package_data={"shiftbench.suites": ["*.yaml", "*.json"], "shiftbench.published": ["*.parquet"]},
)
