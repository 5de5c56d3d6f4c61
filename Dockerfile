# What workers on Dataflow and Flink run in, and a way to run the command: see docs/containers.md.
ARG PYTHON_VERSION=3.11
ARG BEAM_VERSION=2.77.0
# cpu or cuda: which build of torch is installed.
ARG VARIANT=cpu
# Extras of the package, with commas between: demucs.
ARG EXTRAS=
# Of Google's launcher of flex templates: a program without Python or Beam in it.
ARG LAUNCHER_VERSION=20230622_RC00

FROM apache/beam_python${PYTHON_VERSION}_sdk:${BEAM_VERSION} AS beam

FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:${LAUNCHER_VERSION} AS launcher

FROM python:${PYTHON_VERSION}-slim-bookworm AS python
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1


FROM python AS build
WORKDIR /build
RUN python -m venv /opt/venv
COPY constraints.txt pyproject.toml ./

FROM build AS build-cpu
# Of torch's own index nothing but torch is taken.
RUN pip install --no-cache-dir --constraint constraints.txt --no-deps \
        --index-url https://download.pytorch.org/whl/cpu torch

FROM build AS build-cuda
# The build on PyPI brings the libraries of CUDA along.
RUN pip install --no-cache-dir --constraint constraints.txt torch

# hadolint ignore=DL3006
FROM build-${VARIANT} AS installed
ARG EXTRAS
WORKDIR /build
# First what seldom changes: an edit of the code installs nothing but the code again.
RUN python -c "import os, tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
names = [name.strip() for name in os.environ.get('EXTRAS', '').split(',') if name.strip()]; \
extras = [project['optional-dependencies'][name] for name in ['models', *names]]; \
needed = [each for each in sum(extras, project['dependencies']) if '[models]' not in each]; \
print(*needed, sep='\n')" > requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY CHANGELOG.md LICENSE README.md setup.py __init__.py py.typed ./
COPY job-configs job-configs
COPY audio audio
COPY models models
COPY storage storage
COPY transforms transforms
COPY pipelines pipelines
RUN pip install --no-cache-dir --constraint constraints.txt --no-deps . \
    && pip check


FROM python AS runtime-cpu

FROM python AS runtime-cuda
# Dataflow mounts the driver here.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM runtime-${VARIANT} AS runtime
ARG PYTHON_VERSION
ARG BEAM_VERSION
ARG REVISION=unknown
LABEL org.opencontainers.image.title="beamsplitter" \
      org.opencontainers.image.description="Splits recordings into stems, on Apache Beam" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:${PYTHON_VERSION}-slim-bookworm" \
      org.apache.beam.version="${BEAM_VERSION}"
# Without the first, Beam's boot makes an environment of its own that has none of the packages.
# One thread a worker, and glibc keeps the memory of a recording for the next, as in local runs.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    MKL_NUM_THREADS=1 \
    NUMBA_NUM_THREADS=1 \
    MALLOC_ARENA_MAX=1 \
    MALLOC_MMAP_MAX_=0 \
    MALLOC_TRIM_THRESHOLD_=1099511627776 \
    NUMBA_CACHE_DIR=/var/cache/beamsplitter/numba \
    MPLCONFIGDIR=/var/cache/beamsplitter/matplotlib
RUN useradd --create-home --uid 1000 beamsplitter \
    && install --directory --owner=beamsplitter /data /var/cache/beamsplitter
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=installed /opt/venv /opt/venv
WORKDIR /data
USER 1000
# Shows that the image works, and leaves compiled functions and fonts behind, for any user.
RUN beamsplitter demo --output /tmp/demo \
    && rm -r /tmp/demo \
    && chmod -R a+rwX /var/cache/beamsplitter
ENTRYPOINT ["/opt/apache/beam/boot"]


# Dataflow gives its workers folders that only root can write to. The same image launches the flex
# template: Dataflow then starts the launcher in place of the entry point.
FROM runtime AS dataflow
# hadolint ignore=DL3002
USER 0
COPY --from=launcher /opt/google/dataflow/python_template_launcher \
    /opt/google/dataflow/python_template_launcher
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py
# The launcher runs a file, and flex_template.py is a module of a package.
RUN install --directory /template \
    && printf '%s\n' "import runpy" \
        "runpy.run_module('beamsplitter.pipelines.flex_template', run_name='__main__')" \
        > /template/main.py


# What is built if no target is named.
FROM runtime AS worker
