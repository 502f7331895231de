# Debian 12 in both stages: the binary is linked against the C library it runs with.
FROM docker.io/library/rust:1.95-bookworm AS build
# TLS (aws-lc) is C: gcc is in this image; cmake is its fallback where it cannot build with gcc alone.
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin flagger
# The files of the final image, as one tree.
# Flagger's own manifests probe by `wget --spider …/healthz`: called by that name, our binary does just this.
RUN install -D target/release/flagger /image/home/flagger/flagger \
 && mkdir -p /image/usr/bin \
 && ln -s /home/flagger/flagger /image/usr/bin/wget

# The C library, CA certificates, and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/ /
# Flagger's own manifests start it as `./flagger`.
WORKDIR /home/flagger
# By number, so that `runAsNonRoot` can be checked.
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["./flagger"]
