# The image of all components: one static binary under five names, a small one that pods start programs with, no shell, no
# user but 65532.
#
#   docker build -t sealedenv .
#
# `cargo xtask image` makes the same content without a container tool.

FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /sealedenv
COPY . .
# With an explicit target, so that build scripts and macros stay dynamic.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS='-C target-feature=+crt-static --remap-path-prefix=/usr/local/cargo=/cargo' \
    cargo build --release --locked --target "$target" --package sealedenv-image --package sealedenv-exec \
 && mkdir /image \
 && cp "target/$target/release/sealedenv-image" /image/sealedenv \
 && cp "target/$target/release/sealedenv-exec" /image/sealedenv-exec \
 && ln -s sealedenv /image/sealedenv-agent \
 && ln -s sealedenv /image/sealedenv-node \
 && ln -s sealedenv /image/sealedenv-operator \
 && ln -s sealedenv /image/sealedenv-webhook

FROM scratch
COPY --from=build /image/ /
# A number, so that the kubelet can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/sealedenv"]
LABEL org.opencontainers.image.title="sealedenv" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
