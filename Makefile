# Each target is one line over a tool; what it does is in that tool.
.DEFAULT_GOAL := help
.PHONY: help demo test e2e e2e-clean bench lint build image clean

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
IMAGE   ?= secretmanager:$(VERSION)
GO_BUILD = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# The race detector needs a C compiler on Linux. Without one the tests run
# without it, and say so.
RACE := $(shell test "$$(go env CGO_ENABLED)" = 1 && command -v "$$(go env CC)" >/dev/null && echo -race)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## the main job from start to end, with a real Vault, on this machine alone
	@go run ./test/demo

test: ## unit tests, fuzz seeds, and integration with a real Vault and a real API server
	@go run ./test/programs/cmd/programs vault etcd kube-apiserver kubectl >/dev/null
	$(if $(RACE),,@echo 'make test: no C compiler, so the race detector is off')
	test/with-tmp go test $(RACE) -timeout 20m ./...

e2e: ## the story on a cluster: kind, the real driver, a real Vault (KEEP=1 leaves it standing)
	cd test/e2e && go test -p 1 -count=1 -timeout 80m -v ./...

e2e-clean: ## remove what make e2e left: cluster, Docker engine, images
	cd test/e2e && go run ./cmd/clean

bench: ## provider and rotator against bare clients: rates, latencies, CPU, memory, budgets (BENCH=-small for less)
	@go run ./test/bench $(BENCH)

lint: ## gofmt, go vet, staticcheck and go mod tidy, in every module of ours
	@test/lint/run

build: ## the three programs, for this machine, in bin/
	$(GO_BUILD) -o bin/ ./cmd/...
	ln -sf secretmanager bin/kubectl-secretmanager

image: ## the image with provider and rotator
	DOCKER_BUILDKIT=1 docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

clean: ## remove what was built
	rm -rf bin .cache
