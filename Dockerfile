# Two images: the operator's, and with `--target loadtester` the load tester's.
# Debian 12 in all stages: the binaries are linked against the C library they run with.
# The bases are pinned by version, not by digest: a digest has to be renewed for each fix of Debian, and no bot does that here. Distroless and
# Debian have no versions for this, only the release of Debian. The release workflow records the digests that it used as provenance.
FROM docker.io/library/rust:1.95-bookworm AS build
# TLS (aws-lc) and the allocator (jemalloc) are C: gcc and make are in this image; cmake is aws-lc's fallback where gcc alone cannot build it.
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# jemalloc assumes that each machine has the page size of the one that builds it. Kernels on arm64 have pages of up to 64 KB.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi; \
    cargo build --release --locked --bin flagger --bin loadtester
# The files of the operator's image, as one tree.
# Flagger's own manifests probe by `wget --spider …/healthz`. If the operator's binary is called as `wget`, it sends this probe.
RUN install -D target/release/flagger /image/home/flagger/flagger \
 && mkdir -p /image/usr/bin \
 && ln -s /home/flagger/flagger /image/usr/bin/wget

# Programs that hooks call and Debian lacks, at the versions of Flagger's image. hey has no newer release. grpc_health_probe has another
# version: Go's database has no checksum of the one in Flagger's image.
FROM docker.io/library/golang:1.26-bookworm AS tools
ENV CGO_ENABLED=0 GOBIN=/tools GOFLAGS=-trimpath
RUN go install -ldflags '-s -w' github.com/rakyll/hey@v0.1.4 \
 && go install -ldflags '-s -w' github.com/bojand/ghz/cmd/ghz@v0.120.0 \
 && go install -ldflags '-s -w' helm.sh/helm/v3/cmd/helm@v3.21.1 \
 && go install -ldflags '-s -w' github.com/grpc-ecosystem/grpc-health-probe@v0.4.63 \
 && mv /tools/grpc-health-probe /tools/grpc_health_probe

# The load tester: a system with shells, because its tasks are commands.
FROM docker.io/library/debian:bookworm-slim AS loadtester
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bash bats busybox ca-certificates curl git jq wget wrk \
 && rm -rf /var/lib/apt/lists/* \
# Hooks written for Flagger's image expect bash as `sh`, and busybox's programs.
 && ln -sf bash /bin/sh \
 && mkdir /opt/busybox && busybox --install -s /opt/busybox \
 && useradd --uid 10001 --create-home --home-dir /home/app app \
# Flagger's chart and OpenShift start it as another user.
 && chmod 755 /home/app
ENV PATH=$PATH:/opt/busybox
COPY --from=registry.k8s.io/kubectl:v1.36.2 /bin/kubectl /usr/local/bin/kubectl
COPY --from=tools /tools/ /usr/local/bin/
# Hooks written for Flagger's image expect the file here: `ghz --proto=/tmp/ghz/health.proto …`.
COPY --chown=10001:10001 src/loadtester/health.proto /tmp/ghz/health.proto
COPY --from=build /src/target/release/loadtester /home/app/loadtester
# Manifests start it as `./loadtester`.
WORKDIR /home/app
ENV HOME=/home/app
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["./loadtester"]

# The operator: the C library and CA certificates, but no shell and no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/ /
# Flagger's own manifests start it as `./flagger`.
WORKDIR /home/flagger
# By number, so that `runAsNonRoot` can be checked.
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["./flagger"]
