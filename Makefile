# Each target calls a tool, which does the work.
.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-audit test-fips fuzz e2e e2e-matrix cluster e2e-clean bench bench-150k lint vulncheck manifests build image release clean

# In the form that the release has, also before there is a tag. FIPS=1 builds with
# Go's certified FIPS 140-3 module.
VERSION ?= $(shell git describe --tags --always --dirty --abbrev=12 2>/dev/null | sed 's/^[^v]/v0.0.0-g&/')
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
CREATED ?= $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
IMAGE   ?= secretmanager:$(VERSION)
DIST     = dist$(if $(FIPS),-fips)
STAMP    = github.com/secretmanager-io/secretmanager/internal/version
GO_BUILD = CGO_ENABLED=0 GOFIPS140=$(if $(FIPS),certified,off) go build -buildvcs=false -trimpath -ldflags '-s -w -X $(STAMP).version=$(VERSION) -X $(STAMP).commit=$(COMMIT)'

# The race detector needs a C compiler on Linux. Without one, the tests run
# without it, and report that.
RACE := $(shell test "$$(go env CGO_ENABLED)" = 1 && command -v "$$(go env CC)" >/dev/null && echo -race)

# With the race detector a program sleeps for a second before it ends, in case
# another thread is about to report a race. The tests start hundreds of programs.
GORACE ?= atexit_sleep_ms=10

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Nobody debugs the binaries of make test, and without debug information they are linked in half the time.
TEST_LDFLAGS = -ldflags='-s -w'

# These packages start no goroutines. The race detector would only make their tests take three to ten times as long, so
# they run as the programs are built.
SEQUENTIAL = ./internal/ciphertextscan ./internal/retirescan ./test/admission ./test/chart ./test/docs ./test/monitoring

demo: ## the main job from start to end, with a real Vault, only on this machine
	@go run ./test/demo

test: ## unit tests, fuzz seeds, and integration with a real Vault and a real API server
	@go run ./test/programs/cmd/programs vault openbao etcd kube-apiserver kubectl helm promtool promql >/dev/null
	$(if $(RACE),,@echo 'make test: no C compiler, so the race detector is off')
	GORACE=$(GORACE) test/with-tmp go test $(RACE) $(TEST_LDFLAGS) -timeout 30m \
	  $$(go list ./... | grep -vxF "$$(go list $(SEQUENTIAL))")
	CGO_ENABLED=0 test/with-tmp go test -trimpath $(TEST_LDFLAGS) -timeout 20m $(SEQUENTIAL)
	cd tools/release && ../../test/with-tmp go test $(TEST_LDFLAGS) -timeout 20m ./...

test-long: ## tests that take too long for make test, and those that it makes shorter
	@go run ./test/programs/cmd/programs vault openbao etcd kube-apiserver kubectl >/dev/null
	SECRETMANAGER_TEST_LONG=1 test/with-tmp go test -timeout 60m -count=1 -v -run 'TestRotatorPolicy$$' ./test/admission
	SECRETMANAGER_TEST_LONG=1 test/with-tmp go test -timeout 90m -count=1 -v ./rotator
	SECRETMANAGER_TEST_LONG=1 test/with-tmp go test -timeout 60m -count=1 -v -run 'TestGeneratedOnServers' ./internal/retirescan
	SECRETMANAGER_TEST_LONG=1 test/with-tmp go test -timeout 60m -count=1 -v ./test/cluster
	SECRETMANAGER_TEST_LONG=1 test/with-tmp go test -timeout 60m -count=1 -v -run 'TestMemory' ./internal/ciphertextscan

test-audit: ## 10,000 mounts from 50 pods: each login and decrypt in Vault's audit log names its pod
	@go run ./test/programs/cmd/programs vault >/dev/null
	SECRETMANAGER_AUDIT_MOUNTS=10000 test/with-tmp go test -timeout 20m -count=1 -v -run TestEveryDecryptIsAttributable ./provider

FIPS_TESTS ?= . ./ciphertext ./transit ./provider ./rotator ./internal/exporter ./internal/version ./cmd/...
test-fips: ## the programs and their packages with Go's certified FIPS 140-3 module (FIPS_TESTS=./provider for less)
	@go run ./test/programs/cmd/programs vault etcd kube-apiserver >/dev/null
	GOFIPS140=certified CGO_ENABLED=0 test/with-tmp go test -timeout 20m $(FIPS_TESTS)

FUZZTIME ?= 10m
fuzz: ## every fuzz target, one after another, for FUZZTIME (10m) each (FUZZ=-run=NAME for some)
	@go run ./test/fuzz -time '$(FUZZTIME)' $(FUZZ)

e2e: ## end-to-end tests on a kind cluster with the real driver and a real Vault (KEEP=1 keeps it; RUN=NAME for some; K8S=1.36; DRIVER=1.6.0)
	cd test/e2e && go test -p 1 -count=1 -timeout 80m -v $(if $(RUN),-run '$(RUN)' .,./...)

e2e-matrix: ## both suites that depend on Kubernetes, against each version of it and of the driver; writes docs/compatibility.md (MATRIX='-column 1.36' for some)
	@go run ./test/matrix/cmd/matrix $(MATRIX)

cluster: ## a kind cluster with the driver, a Vault and the product, which stays until make e2e-clean
	cd test/e2e && go run ./cmd/cluster

e2e-clean: ## remove the cluster, Docker engine and images of make e2e
	cd test/e2e && go run ./cmd/clean

bench: ## provider and rotator against bare clients: rates, latencies, CPU, memory, budgets (BENCH=-small for less)
	@go run ./test/bench $(BENCH)

bench-150k: ## the rotation of 150,000 Secrets, as many as Kubernetes supports
	@go run ./test/bench -what rotator -secrets 150000

lint: ## format, golangci-lint and go mod tidy, in every module of the repository
	@tools/lint/run

GOVULNDB ?= https://vuln.go.dev
vulncheck: ## known vulnerabilities in what is released (GOVULNDB=file:///DIRECTORY for a copy of the database)
	cd tools/vulncheck && go test ./...
	GOVULNDB='$(GOVULNDB)' tools/vulncheck/run

manifests: ## manifests/, the chart's values.yaml and its page, from the chart and its schema
	@go run ./test/chart/cmd/manifests

build: ## the three programs, for this machine, in bin/
	$(GO_BUILD) -o bin/ ./cmd/...
	ln -sf secretmanager bin/kubectl-secretmanager

image: ## the image with provider and rotator
	DOCKER_BUILDKIT=1 docker build --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) --build-arg CREATED=$(CREATED) -t $(IMAGE) .

release: ## archives, image, SBOMs and the plugin's manifest in dist/ (VERSION=v1.2.3; FIPS=1 for that build, in dist-fips/)
	rm -rf $(DIST)
	cd tools/release && go run . -version '$(VERSION)' $(if $(FIPS),-fips) -out ../../$(DIST)

clean: ## remove what was built
	rm -rf bin dist dist-fips .cache
