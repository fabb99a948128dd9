# The CPU worker: Flink's worker pool, Dataflow's SDK container, and the client that submits.
#
#   docker build --file infra/docker/worker-cpu.Dockerfile --tag REGISTRY/worker-cpu:0.1.0 .
#   docker build --file infra/docker/worker-cpu.Dockerfile --target dataflow \
#       --tag REGISTRY/worker-cpu:0.1.0-dataflow .
#
# The first runs as user 10001. Dataflow mounts folders of root's under /var/opt/google for the worker to
# write in, so the second, the same layers, runs as root there.
ARG BEAM_VERSION=2.77.0
ARG GO_TAG=1.26.5-bookworm@sha256:1ecb7edf62a0408027bd5729dfd6b1b8766e578e8df93995b225dfd0944eb651
ARG PYTHON_TAG=3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

# What starts the workers is built from Beam's source, whose hash Go checks against its public log.
FROM golang:${GO_TAG} AS beam
ARG BEAM_VERSION
RUN CGO_ENABLED=0 GOFLAGS=-trimpath \
        go install "github.com/apache/beam/sdks/v2/python/container@v${BEAM_VERSION}" \
    && cp "$GOPATH/pkg/mod/github.com/apache/beam/sdks/v2@v${BEAM_VERSION}/LICENSE" /go/bin/

FROM python:${PYTHON_TAG} AS package
WORKDIR /source
COPY setup.py README.md ./
COPY framebank framebank
COPY features features
COPY pipelines pipelines
COPY train train
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:${PYTHON_TAG} AS dataflow
RUN --mount=type=bind,source=infra/docker,target=/requirements \
    pip install --no-cache-dir --require-hashes --requirement /requirements/worker-cpu.lock
COPY --from=beam /go/bin/container /opt/apache/beam/boot
COPY --from=beam /go/bin/LICENSE /opt/apache/beam/
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl \
    && useradd --uid 10001 --create-home framebank
# All is installed: boot need not make a virtual environment for each worker.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
# Python as process 1 ignores SIGTERM; on SIGINT the pool ends its workers, and so does boot.
STOPSIGNAL SIGINT
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM dataflow AS worker
USER 10001
WORKDIR /home/framebank
