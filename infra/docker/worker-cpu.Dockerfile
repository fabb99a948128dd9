# The CPU worker: Flink's worker pool, Dataflow's SDK container, and the client that submits.
#
#   docker build --file infra/docker/worker-cpu.Dockerfile --tag REGISTRY/worker-cpu:0.1.0 .
#   docker build --file infra/docker/worker-cpu.Dockerfile --target dataflow \
#       --tag REGISTRY/worker-cpu:0.1.0-dataflow .
#
# The first runs as user 10001. Dataflow mounts folders of root's under /var/opt/google for the worker to
# write in, so the second, the same layers, runs as root there.
ARG BEAM_VERSION=2.77.0
ARG PYTHON_TAG=3.11.14-slim-bookworm

FROM apache/beam_python3.11_sdk:${BEAM_VERSION} AS beam

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
    pip install --no-cache-dir --constraint /requirements/constraints.txt \
        --requirement /requirements/worker-cpu.txt
COPY --from=beam /opt/apache/beam/boot /opt/apache/beam/LICENSE /opt/apache/beam/NOTICE /opt/apache/beam/
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
