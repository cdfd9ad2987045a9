# One image with the two programs that run in a cluster: static binaries, CA roots
# and licenses, and nothing else: no shell, no package, no libc.
#
# `make release` makes the image that is published, without Docker and byte for
# byte the same each time. This file is for building one with Docker; the files
# come from the same program, and a test compares the rest.
#
# A tag can be moved to another image, a digest cannot. To update: change the tag,
# and take the digest of the multi-platform index from
# `docker buildx imagetools inspect golang:TAG`.
FROM --platform=$BUILDPLATFORM golang:1.26.8@sha256:0f063af2d465d8dcae54cce04278ada488b96f77b42449c8d071e47d016cc65a AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY tools/release/go.mod tools/release/go.sum tools/release/
RUN go mod download && cd tools/release && go mod download
COPY . .
ARG VERSION=v0.0.0-devel COMMIT=unknown TARGETOS TARGETARCH
RUN cd tools/release && go run . -rootfs /out -platforms $TARGETOS/$TARGETARCH -version $VERSION -commit $COMMIT -date 0

FROM scratch
COPY --from=build /out/ /
ARG VERSION=v0.0.0-devel COMMIT=unknown CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="SecretManager" \
      org.opencontainers.image.description="Provider and rotator: Kubernetes Secrets that hold only Vault transit ciphertext" \
      org.opencontainers.image.source="https://github.com/secretmanager-io/secretmanager" \
      org.opencontainers.image.documentation="https://github.com/secretmanager-io/secretmanager/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.created="$CREATED"
# The provider's manifest sets user 0, because the driver's socket folder is
# root's. Nothing else needs it.
USER 65532:65532
ENV PATH=/bin
CMD ["/bin/secretmanager-provider"]
