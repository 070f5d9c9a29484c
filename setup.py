"""What pyproject.toml cannot say: folders of the repository that are packages with data alone."""

from setuptools import find_packages, setup

# Kept at the top level, where readers of the repository look for them; see core/shipped.py.
SHIPPED = {"shiftbench.suites": "suites", "shiftbench.published": "results/published"}

setup(
    packages=[*find_packages("benchmark"), *SHIPPED],
    package_dir={"": "benchmark", **SHIPPED},
)
