# Hopgate in an image: `docker build .` needs BuildKit and nothing else.
#
# The versions of everything Python are locked by hash in requirements/, those of Rust crates
# in Cargo.lock. Raise the base images by hand, and read what changed.

FROM rust:1.95-slim-bookworm AS rust

FROM python:3.11-slim-bookworm AS build
# psycopg is compiled against libpq.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libpq-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup \
    CARGO_HOME=/usr/local/cargo \
    PATH=/build/tools/bin:/usr/local/cargo/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    MATURIN_PEP517_ARGS=--locked
WORKDIR /build

# What runs: the layer that takes longest to make changes least often.
COPY requirements/otel.txt requirements/sentry.txt requirements/logo.txt requirements/
RUN python -m venv /opt/hopgate \
    && /opt/hopgate/bin/pip install --require-hashes -r requirements/otel.txt -r requirements/sentry.txt -r requirements/logo.txt

# What builds, apart from it.
COPY requirements/run.txt requirements/
RUN python -m venv tools \
    && tools/bin/pip install --require-hashes -r requirements/run.txt

COPY Cargo.toml Cargo.lock ./
COPY pyext pyext
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./pyext ./pyext/front

COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/hopgate/bin/pip install --no-deps --no-index wheels/*.whl \
    && /opt/hopgate/bin/pip check


FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libpq5 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin hopgate \
    && install --directory --owner hopgate --mode 0700 /var/lib/hopgate
COPY --from=build /opt/hopgate /opt/hopgate
# Alone, without the three URLs, it runs embedded and keeps its data here: mount a volume.
ENV PATH=/opt/hopgate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOPGATE_BIND=0.0.0.0:8000 \
    HOPGATE_DATA_DIR=/var/lib/hopgate
USER 10001
WORKDIR /var/lib/hopgate
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["hopgate"]
CMD ["serve"]
