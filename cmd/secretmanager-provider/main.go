// Command secretmanager-provider is a provider of the Secrets Store CSI driver that decrypts ciphertext Secrets with
// Vault's transit engine. It runs on each node and serves a unix socket; see package provider.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/secretmanager-io/secretmanager/internal/httpserver"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/provider"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	// The provider mostly waits. With more than one processor, Go's scheduler wakes up threads for each response, which
	// takes a sixth of the CPU time of a mount and makes it no faster (docs/performance.md).
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run runs the program and returns its exit code. The log goes to stderr; --help, --version and the audit log to
// stdout.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case errors.Is(err, options.ErrVersion):
		fmt.Fprintln(stdout, version.Line("secretmanager-provider"))
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "secretmanager-provider: %v\nSee --help for the flags.\n", err)
		return 2
	}
	log := o.log.Logger(stderr)
	klog.SetSlogLogger(log) // for client-go
	slog.SetDefault(log)
	if err := serve(ctx, o, log, stdout); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	log.Info("stopped")
	return 0
}

func serve(ctx context.Context, o *serveOptions, log *slog.Logger, stdout io.Writer) error {
	config, err := o.config(log, stdout)
	if err != nil {
		return err
	}
	p, err := provider.New(config)
	if err != nil {
		return err
	}
	var server *provider.Server
	endpoints := []*endpoint{
		{purpose: "health probes", address: o.healthAddr,
			handler: provider.Health(o.endpoint, func() bool { return server.Ready() })},
		{purpose: "metrics", address: o.metricsAddr, handler: p.Metrics(), limited: true},
		{purpose: "profiles", address: o.pprofAddr, handler: httpserver.Throttle(profiles()), limited: true},
	}
	endpoints = slices.DeleteFunc(endpoints, func(p *endpoint) bool { return p.address == "" })
	// Listen here before the socket: if an address is in use, an earlier provider keeps the socket.
	for _, endpoint := range endpoints {
		if endpoint.server, err = httpserver.Listen(endpoint.address, endpoint.handler, log); err != nil {
			return fmt.Errorf("listening for %s: %w", endpoint.purpose, err)
		}
		defer endpoint.server.Close()
		if endpoint.limited {
			endpoint.server.Limit()
		}
		log.Info("listening", "for", endpoint.purpose, "address", endpoint.server.Addr().String())
	}
	if server, err = provider.Listen(o.endpoint, p); err != nil {
		return err
	}
	log.Info("secretmanager-provider", "version", config.BuildVersion, "vault", config.Vault.Address, "mount-timeout",
		config.MountTimeout)
	group, ctx := errgroup.WithContext(ctx)
	// Health probes and metrics are served until the last mount is finished.
	served, done := context.WithCancel(context.Background())
	group.Go(func() error {
		defer done()
		return server.Serve(ctx)
	})
	for _, endpoint := range endpoints {
		context.AfterFunc(served, func() { endpoint.server.Close() })
		group.Go(func() error {
			if err := endpoint.server.Serve(); err != nil {
				return fmt.Errorf("serving %s: %w", endpoint.purpose, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// endpoint is an HTTP handler with its own address.
type endpoint struct {
	purpose, address string
	handler          http.Handler
	limited          bool // use [httpserver.Server.Limit]: no probe of the kubelet uses the address
	server           *httpserver.Server
}

// profiles serves Go's profiles. Importing net/http/pprof also registers them on http.DefaultServeMux, which this
// program does not serve.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
