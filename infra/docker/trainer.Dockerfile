# The trainer: `framebank train`, `ask`, `inspect` and `verify`, on CPUs and GPUs; no Apache Beam.
#
#   docker build --file infra/docker/trainer.Dockerfile --tag REGISTRY/trainer:0.1.0 .
#   docker run --rm --gpus all --volume "$PWD:/work" --user "$(id -u)" REGISTRY/trainer:0.1.0 \
#       train --cache gs://BUCKET/cache --questions questions.csv --model model
#
# `extract` and `score` are pipelines: they are in the worker's image.
ARG PYTHON_TAG=3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM python:${PYTHON_TAG} AS package
WORKDIR /source
COPY setup.py README.md ./
COPY framebank framebank
COPY features features
COPY pipelines pipelines
COPY train train
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:${PYTHON_TAG} AS trainer
RUN --mount=type=bind,source=infra/docker,target=/requirements \
    pip install --no-cache-dir --require-hashes --requirement /requirements/trainer.lock
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl \
    && useradd --uid 10001 --create-home framebank
ENV TF_FORCE_GPU_ALLOW_GROWTH=true \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /work
ENTRYPOINT ["framebank"]
CMD ["train", "--help"]
