package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	_ "time/tzdata" // the image has no time zones, and a CronJob may name one

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/secretmanager-io/secretmanager/internal/exporter"
	"github.com/secretmanager-io/secretmanager/internal/httpserver"
	"github.com/secretmanager-io/secretmanager/internal/options"
	"github.com/secretmanager-io/secretmanager/internal/options/kubeoptions"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// exportVerb is the first argument that makes the program serve metrics.
const exportVerb = "export"

// exportOptions are the flags of export.
type exportOptions struct {
	metricsAddr    string
	stateNamespace string
	cronJob        string
	kube           kubeoptions.Kubernetes
	log            options.Log
}

func parseExport(args []string, stderr io.Writer) (*exportOptions, error) {
	o := &exportOptions{}
	f := newFlagSet("secretmanager-rotator export", "serves metrics of the rotator's runs to Prometheus.", stderr)
	f.StringVar(&o.metricsAddr, "metrics-addr", ":9090", "`address` to serve /metrics and /healthz at")
	f.StringVar(&o.stateNamespace, "state-namespace", rotator.DefaultStateNamespace,
		"`namespace` of the ConfigMaps and the CronJob of the rotator")
	f.StringVar(&o.cronJob, "cronjob", "secretmanager-rotator",
		"`name` of the CronJob that starts the runs; empty if something else does")
	o.kube.AddFlags(f)
	o.log.AddFlags(f)
	return o, options.Parse(f, args, func() []error {
		errs := append(options.ValidateListeners(options.Listener{Flag: "metrics-addr", Address: o.metricsAddr}),
			o.log.Validate()...)
		if o.metricsAddr == "" {
			errs = append(errs, options.Invalid("metrics-addr", "must not be empty"))
		}
		return errs
	})
}

// export serves metrics until the context ends.
func export(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseExport(args, stderr)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return exitDone
	case errors.Is(err, options.ErrVersion):
		fmt.Fprintln(stdout, version.Line("secretmanager-rotator"))
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "secretmanager-rotator export: %s\nsee secretmanager-rotator export --help\n", err)
		return exitUsage
	}
	log := o.log.Logger(stderr)
	klog.SetSlogLogger(log)
	if err := o.serve(ctx, log); err != nil {
		log.Error("stopped", "error", err)
		return exitFailed
	}
	log.Info("stopped")
	return exitDone
}

func (o *exportOptions) serve(ctx context.Context, log *slog.Logger) error {
	kube, err := o.kube.Client("secretmanager-rotator", 0, nil)
	if err != nil {
		return err
	}
	handler := exporter.New(exporter.Config{
		Kube: kube, Namespace: o.stateNamespace, CronJob: o.cronJob, Version: version.Number(), Log: log,
	}).Handler()
	web, err := httpserver.Listen(o.metricsAddr, handler, log)
	if err != nil {
		return fmt.Errorf("listening for metrics: %w", err)
	}
	log.Info("listening", "for", "metrics", "address", web.Addr().String(), "version", version.Number())
	defer context.AfterFunc(ctx, func() { web.Close() })()
	if err := web.Serve(); err != nil {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}
