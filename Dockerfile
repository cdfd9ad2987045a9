# One image with the two programs that run in a cluster. It holds static
# binaries and CA roots and nothing else: no shell, no package, no libc.
#
# BUILD says where the files come from: "source" compiles them here, for the
# platform asked for; "prebuilt" takes bin/image/, laid out by whoever calls,
# where no base image can be had.
ARG BUILD=source

FROM --platform=$BUILDPLATFORM golang:1.26 AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" \
      -o /out/bin/ ./cmd/secretmanager-provider ./cmd/secretmanager-rotator && \
    mkdir -p /out/etc/ssl/certs && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/

FROM scratch AS prebuilt
COPY bin/image/ /out/

FROM ${BUILD} AS build

FROM scratch
COPY --from=build /out/ /
# The provider's manifest sets user 0, because the driver's socket folder is
# root's. Nothing else needs it.
USER 65532:65532
ENV PATH=/bin
CMD ["/bin/secretmanager-provider"]
