// Command secretmanager-provider is the provider of the Secrets Store CSI
// driver that decrypts ciphertext Secrets with Vault's transit engine. It runs
// once on each node and serves a unix socket; see package provider.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/secretmanager-io/secretmanager/provider"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	// It waits far more than it works. With more than one processor, Go's scheduler
	// wakes up threads with each answer: a sixth of the CPU of a mount, and no
	// sooner for it (docs/performance.md).
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the program. Its log goes to stderr; stdout is for --help and --version.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv, stdout)
	switch {
	case errors.Is(err, errDone):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "secretmanager-provider: %v\n", err)
		return 2
	}
	log := o.logger(stderr)
	klog.SetSlogLogger(log) // client-go's
	slog.SetDefault(log)
	if err := serve(ctx, o, log); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	log.Info("stopped")
	return 0
}

func serve(ctx context.Context, o *options, log *slog.Logger) error {
	config, err := o.config(log)
	if err != nil {
		return err
	}
	p, err := provider.New(config)
	if err != nil {
		return err
	}
	var health net.Listener
	if o.healthAddr != "" {
		if health, err = net.Listen("tcp", o.healthAddr); err != nil {
			return fmt.Errorf("listening for health probes: %w", err)
		}
		defer health.Close()
	}
	server, err := provider.Listen(o.endpoint, p)
	if err != nil {
		return err
	}
	log.Info("secretmanager-provider", "version", config.BuildVersion, "vault", config.Vault.Address, "mount-timeout", config.MountTimeout)
	probes := &http.Server{
		Handler:           provider.Health(o.endpoint, server.Ready),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		// Probes are answered until the last mount is finished.
		defer probes.Close()
		return server.Serve(ctx)
	})
	if health != nil {
		group.Go(func() error {
			if err := probes.Serve(health); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving health probes: %w", err)
			}
			return nil
		})
	}
	return group.Wait()
}
