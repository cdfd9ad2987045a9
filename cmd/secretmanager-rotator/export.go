package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	_ "time/tzdata" // the image has none, and a CronJob may name a time zone

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/secretmanager-io/secretmanager/internal/exporter"
	"github.com/secretmanager-io/secretmanager/internal/httpserver"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// exportVerb is the first argument that makes the program tell Prometheus how the
// runs went, instead of making one.
const exportVerb = "export"

// exportOptions is what the flags of export say.
type exportOptions struct {
	logging
	metricsAddr    string
	stateNamespace string
	cronJob        string
	kubeconfig     string
}

func parseExport(args []string, stderr io.Writer) (*exportOptions, error) {
	o := &exportOptions{}
	f := pflag.NewFlagSet("secretmanager-rotator export", pflag.ContinueOnError)
	f.SetOutput(stderr)
	f.SortFlags = false
	f.StringVar(&o.metricsAddr, "metrics-addr", ":9090", "`address` to serve /metrics and /healthz at")
	f.StringVar(&o.stateNamespace, "state-namespace", rotator.DefaultStateNamespace, "`namespace` of the ConfigMap "+rotator.StateName+" and of the CronJob")
	f.StringVar(&o.cronJob, "cronjob", "secretmanager-rotator", "`name` of the CronJob that starts the runs; empty if something else does")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `file` (default: the cluster that this runs in)")
	o.flags(f)
	f.Usage = func() {
		fmt.Fprintf(stderr, "secretmanager-rotator export tells Prometheus how the rotator's runs went.\n\nFlags:\n%s", f.FlagUsages())
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var errs []error
	if f.NArg() > 0 {
		errs = append(errs, fmt.Errorf("arguments that are not flags: %q", f.Args()))
	}
	if o.metricsAddr == "" {
		errs = append(errs, errors.New("--metrics-addr is empty: there would be nothing to do"))
	}
	return o, errors.Join(append(errs, o.logging.check())...)
}

// export serves the metrics until the context ends.
func export(ctx context.Context, args []string, stderr io.Writer) int {
	o, err := parseExport(args, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "secretmanager-rotator export: %s\nsee secretmanager-rotator export --help\n", err)
		return exitUsage
	}
	log := o.logger(stderr)
	klog.SetSlogLogger(log)
	if err := o.serve(ctx, log); err != nil {
		log.Error("stopped", "error", err)
		return exitLeft
	}
	log.Info("stopped")
	return exitDone
}

func (o *exportOptions) serve(ctx context.Context, log *slog.Logger) error {
	config, err := kubeConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	kube, err := newClientset(config)
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
