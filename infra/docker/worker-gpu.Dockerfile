# The GPU worker: the CPU worker with CUDA's libraries, for Dataflow with --accelerator and for Flink.
#
#   docker build --file infra/docker/worker-gpu.Dockerfile --tag REGISTRY/worker-gpu:0.1.0 .
#   docker build --file infra/docker/worker-gpu.Dockerfile --target dataflow \
#       --tag REGISTRY/worker-gpu:0.1.0-dataflow .
#
# CUDA and cuDNN come as the packages that TensorFlow's wheel names, so that Python and every version are
# those of the CPU worker. The driver is the machine's: Dataflow installs it (worker_accelerator=...;
# install-nvidia-driver) and mounts it at /usr/local/nvidia, Kubernetes' device plugin likewise.
# Why two users: see worker-cpu.Dockerfile.
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
        --requirement /requirements/worker-gpu.txt
COPY --from=beam /opt/apache/beam/boot /opt/apache/beam/LICENSE /opt/apache/beam/NOTICE /opt/apache/beam/
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl \
    && useradd --uid 10001 --create-home framebank
# TensorFlow takes all of a GPU's memory at once unless told to grow; a process that starts while the last
# one ends would find none.
ENV TF_FORCE_GPU_ALLOW_GROWTH=true \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
STOPSIGNAL SIGINT
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM dataflow AS worker
USER 10001
WORKDIR /home/framebank
