# The server: `framebank serve` on CPUs, with the page and the views of a cache; no Apache Beam, no CUDA.
#
#   docker build --file infra/docker/server.Dockerfile --tag REGISTRY/server:0.1.0 .
#   docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD:/work:ro" --user "$(id -u)" --read-only \
#       --tmpfs /tmp:size=8g --tmpfs /home/framebank REGISTRY/server:0.1.0 \
#       serve --model model --host 0.0.0.0 --token-file token
#
# Clips that are sent lie in /tmp while they are decoded. SIGTERM lets requests end: `docker stop --time 45`.
ARG PYTHON_TAG=3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM python:${PYTHON_TAG} AS package
WORKDIR /source
COPY setup.py README.md ./
COPY framebank framebank
COPY features features
COPY pipelines pipelines
COPY train train
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:${PYTHON_TAG} AS server
RUN --mount=type=bind,source=infra/docker,target=/requirements \
    pip install --no-cache-dir --require-hashes --requirement /requirements/server.lock
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl \
    && useradd --uid 10001 --create-home framebank
USER 10001
WORKDIR /work
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=9)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["framebank"]
CMD ["serve", "--help"]
