# The launcher: the image of Dataflow's flex template, in which the service builds the job graph.
#
#   docker build --file infra/docker/launcher.Dockerfile --tag REGISTRY/launcher:0.1.0 .
#   framebank template build --command extract --image REGISTRY/launcher:0.1.0 --out gs://BUCKET/templates
#
# Workers run another image, worker-cpu or worker-gpu, target dataflow (--sdk_container_image): both have
# Framebank in them, so nothing is staged or installed at launch. It runs as root, since Google's launcher
# writes its log to /var/log/dataflow and ends where it may not.
ARG LAUNCHER_TAG=flex_templates_base_image_release_20260720_RC00
ARG LAUNCHER_DIGEST=sha256:35e7280471e19e0dfa4399944978569f5f4adee51d6d10191d613295cae8b75d
ARG PYTHON_TAG=3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:${LAUNCHER_TAG}@${LAUNCHER_DIGEST} AS google

FROM python:${PYTHON_TAG} AS package
WORKDIR /source
COPY setup.py README.md ./
COPY framebank framebank
COPY features features
COPY pipelines pipelines
COPY train train
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:${PYTHON_TAG} AS launcher
RUN --mount=type=bind,source=infra/docker,target=/requirements \
    pip install --no-cache-dir --require-hashes --requirement /requirements/worker-cpu.lock
COPY --from=google /opt/google/dataflow/python_template_launcher /opt/google/dataflow/
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl
WORKDIR /template
COPY pipelines/runners/dataflow/flex_launcher.py launch.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
