// Command secretmanager-rotator makes one run of the rotator and exits. The CronJob starts it.
//
// It writes the log to standard error, and at the end the report, a line of JSON, to
// standard output. The exit code is 0 if every entry is at its target version, 1 if
// something failed or was skipped or another run holds the Lease, and 2 if the command
// line is invalid.
//
// With the argument export it makes no run, and serves metrics of the last runs to
// Prometheus until it is stopped; see package exporter.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == exportVerb {
		return export(ctx, args[1:], stdout, stderr)
	}
	o, err := parse(args, getenv, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return exitDone
	}
	if errors.Is(err, options.ErrVersion) {
		fmt.Fprintln(stdout, version.Line("secretmanager-rotator"))
		return exitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "secretmanager-rotator: %s\nsee secretmanager-rotator --help\n", err)
		return exitUsage
	}
	log := o.log.Logger(stderr)
	o.Log = log
	klog.SetSlogLogger(log)
	log.Info("secretmanager-rotator", "version", version.Number())
	report, err := rotate(ctx, o)
	if report != nil {
		// The report can always be encoded, but the stream may be closed.
		if err := json.NewEncoder(stdout).Encode(report); err != nil {
			log.Error("writing the report", "error", err)
		}
	}
	if err != nil {
		if reason := failure.Of(err); reason != nil {
			log = log.With("reason", reason.String())
		}
		log.Error("the run is not complete", "error", err)
		return exitFailed
	}
	return exitDone
}

func rotate(ctx context.Context, o *runOptions) (*rotator.Report, error) {
	waiting := func(doing string, waited time.Duration) {
		o.Log.Warn("waiting for a response", "request", doing, "waited", waited.Round(time.Second).String())
	}
	o.vault.Waiting = waiting
	o.vault.Avoided = func(address string, err error) {
		o.Log.Warn("avoiding a server of Vault until it responds", "address", address, "error", err)
	}
	client, err := transit.NewClient(o.vault.Config)
	if err != nil {
		return nil, err
	}
	if transit.PlainHTTP(o.vault.Address) {
		o.Log.Warn("requests to Vault are not encrypted: everyone on the network can read their tokens", "address",
			o.vault.Address)
	}
	kube, err := o.kube.Client(ciphertext.RotatorManager, o.KubeQPS, waiting)
	if err != nil {
		return nil, err
	}
	return rotator.Run(ctx, client.Session(o.vault.Namespace, o.tokens(client)), kube, o.Options)
}
