# The image of the worker: the Lambda executable, Python, and the generators with
# their environments. BuildKit builds it (docker build, or pulumi up).
#
# The base images are the Docker Official Images, from the mirror in Amazon's public
# registry, which needs no login and limits nobody within AWS. The digests are those of
# Docker Hub's indexes for amd64 and arm64. Both can be replaced. BASE_IMAGE must be
# Debian's bookworm with a python3 that is 3.11 and has venv.
ARG BUILDER_IMAGE=public.ecr.aws/docker/library/golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d
ARG BASE_IMAGE=public.ecr.aws/docker/library/python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba

FROM --platform=$BUILDPLATFORM ${BUILDER_IMAGE} AS build
ARG TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
COPY infra/stack infra/stack
COPY worker worker
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/var/cache/go-build \
    export CGO_ENABLED=0 GOMODCACHE=/go/pkg/mod GOCACHE=/var/cache/go-build \
    && GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/bootstrap/ ./worker/bootstrap \
    && GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/install/ ./worker/install \
    && go build -o /out/native/ ./worker/install
# Apart from their programs, so that an edit of a generator leaves the environments alone.
COPY generators generators
RUN /out/native/install requirements generators /out/requirements

FROM ${BASE_IMAGE}
# Fonts: generators look for them at fixed paths and fall back silently, so they
# decide pixels. libgl1 and libglib2.0-0 are opencv-python's, libcairo2 is cairosvg's.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ffmpeg fontconfig fonts-dejavu fonts-freefont-ttf fonts-liberation libcairo2 libgl1 libglib2.0-0 \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
# Environments share most of their packages: equal files are stored once. The worker
# runs as a user of Lambda's own, who must be able to read all and change nothing.
# The cache lies on another disk, from which uv can only copy.
RUN --mount=type=bind,from=build,source=/out/install,target=/install \
    --mount=type=bind,from=build,source=/out/requirements,target=/requirements \
    --mount=type=cache,target=/var/cache/python \
    export PIP_CACHE_DIR=/var/cache/python/pip UV_CACHE_DIR=/var/cache/python/uv UV_LINK_MODE=copy \
    && /install/install environments /requirements /opt/generators \
    && rm -rf /opt/generators/installer \
    && hardlink --quiet --ignore-time /opt/generators/environments
COPY --chmod=555 generators /opt/generators/source
# A JSON object, {"<generator>": "<commit>"}: the build context has no git history.
ARG GENERATOR_COMMITS={}
RUN --mount=type=bind,from=build,source=/out/install,target=/install \
    --mount=type=cache,target=/var/cache/python \
    export PIP_CACHE_DIR=/var/cache/python/pip UV_CACHE_DIR=/var/cache/python/uv UV_LINK_MODE=copy \
    && /install/install generators /opt/generators/source /opt/generators \
    && rm -rf /opt/generators/installer \
    && { python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/generators/source || true; }
COPY --from=build /out/bootstrap/bootstrap /usr/local/bin/bootstrap
# Lambda takes no notice of this and has a user of its own, who is in no passwd either.
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/bootstrap"]
