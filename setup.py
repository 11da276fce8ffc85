"""Build script: metadata and dependencies of the distribution ``nnunet-ext``."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION: dict[str, str] = {}
exec((HERE / "nnunet_ext" / "version.py").read_text(encoding="utf-8"), VERSION)

# for nnUNetTrainerLoRA alone
LORA = ["peft>=0.17"]
# for `nnunet_ext jobs` on Slurm alone
JOBS = ["submitit>=1.5"]
# for the notebooks in docs/tutorials alone
NOTEBOOKS = ["ipykernel>=6.29", "matplotlib-inline>=0.1", "nbclient>=0.10", "nbformat>=5.10"]
TEST = [
    *(*LORA, *JOBS, *NOTEBOOKS),
    *("pytest>=8", "pytest-xdist>=3.5", "pytest-timeout>=2.3", "filelock>=3.12", "hypothesis>=6.100"),
]
LINT = ["ruff>=0.6", "mypy>=1.11", "types-tqdm"]
# for `make dist` alone
DIST = ["build>=1.2", "twine>=6.1"]
# for `make mutants` alone
MUTANTS = ["mutmut>=3.8,<4"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]

setup(
    name="nnunet-ext",
    version=VERSION["__version__"],
    description="Label-efficient training techniques for nnU-Net v2, found by its own commands.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["nnunet_ext", "nnunet_ext.*"]),
    package_data={"nnunet_ext": ["py.typed"], "nnunet_ext.report": ["templates/*"]},
    install_requires=[
        "nnunetv2>=2.8,<3",
        "torch>=2.6",
        "acvl-utils>=0.2.3",
        "batchgenerators>=0.25.1",
        "batchgeneratorsv2>=0.3.0",
        "dynamic-network-architectures>=0.4.1",
        "connected-components-3d>=3.10",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "monai>=1.5.1",
        "nibabel>=4",
        "numpy>=1.26",
        "pandas>=2",
        "pydantic>=2.6,<3",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "SimpleITK>=2.3",
        "tifffile>=2023.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "lora": LORA,
        "jobs": JOBS,
        "test": TEST,
        "lint": LINT,
        "docs": DOCS,
        "mutants": MUTANTS,
        "dist": DIST,
        "dev": TEST + LINT + DOCS + DIST,
    },
    entry_points={"console_scripts": ["nnunet_ext=nnunet_ext.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Intended Audience :: Healthcare Industry",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
