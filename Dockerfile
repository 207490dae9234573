# One image for every role; the command chooses (see docker-compose.yml).
FROM rust:1.95.0-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential pkg-config zlib1g-dev mold \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p ingest-api -p stream-processors -p sinks --bins \
 && mkdir /out \
 && cp target/release/ingest-api target/release/stream-processors target/release/sinks /out/

FROM debian:bookworm-slim
# curl asks /readyz; openssl makes the signing keys of a first start.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl openssl zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home vorca \
 && install -d -o vorca -g vorca -m 0700 /keys /audit
COPY --from=build /out/ /usr/local/bin/
USER vorca
CMD ["ingest-api", "--help"]
