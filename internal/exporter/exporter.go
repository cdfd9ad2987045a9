// Package exporter serves metrics of the rotator's runs to Prometheus.
//
// Prometheus cannot scrape a run, because it ends, and a push gateway would keep its
// metrics forever. But each run writes a summary to the ConfigMap [rotator.StateName].
// The exporter runs all the time. At each scrape it reads that ConfigMap, and the
// CronJob for the time of the next run, and caches nothing. It omits the metrics of an
// object that it cannot read and sets secretmanager_rotation_read_success to 0, so
// that Prometheus never has old values as new samples.
//
// It needs get on these two objects, and no access to Secrets or Vault.
// docs/reference/metrics.md lists its metrics.
package exporter

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/httpserver"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// readTimeout bounds reading the objects. It is less than Prometheus' default scrape
// timeout of ten seconds, so that a scrape gets a response.
const readTimeout = 5 * time.Second

// Config configures an Exporter.
type Config struct {
	Kube      kubernetes.Interface
	Namespace string // namespace of the ConfigMap and of the CronJob
	CronJob   string // name of the CronJob; empty if something else starts the runs
	Version   string // version of this build
	Log       *slog.Logger
}

// An Exporter serves the metrics. It is safe for concurrent use.
type Exporter struct {
	Config
	process *prometheus.Registry // metrics of the process itself
}

// New returns an Exporter. It sends no requests.
func New(c Config) *Exporter {
	e := &Exporter{Config: c, process: prometheus.NewRegistry()}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: "build_info",
		Help: "1, with the version of the exporter and of Go."}, []string{"version", "goversion"})
	build.WithLabelValues(c.Version, runtime.Version()).Set(1)
	e.process.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return e
}

// Handler serves
//
//	/metrics  in the Prometheus format that the request accepts
//	/healthz  always 200: a restart does not help if the API server is unavailable
func (e *Exporter) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", httpserver.Metrics(func(ctx context.Context) ([]*dto.MetricFamily, error) {
		runs := prometheus.NewRegistry()
		runs.MustRegister(e.read(ctx))
		return prometheus.Gatherers{e.process, runs}.Gather()
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// read reads both objects. A missing one is not an error: there was no run yet, or
// nothing starts one.
func (e *Exporter) read(ctx context.Context) *snapshot {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var s snapshot
	summary, err := rotator.FetchSummary(ctx, e.Kube, e.Namespace)
	if err != nil {
		e.Log.Error("reading the state of the rotator", "configmap", e.Namespace+"/"+rotator.StateName, "error", err)
	} else {
		s.summary = summary
	}
	if e.CronJob == "" {
		return &s
	}
	s.scheduled = true
	if s.schedule, err = e.schedule(ctx, s.summary); err != nil {
		e.Log.Error("reading the CronJob", "cronjob", e.Namespace+"/"+e.CronJob, "error", err)
	}
	return &s
}

func (e *Exporter) schedule(ctx context.Context, last *rotator.Summary) (*schedule, error) {
	cron, err := e.Kube.BatchV1().CronJobs(e.Namespace).Get(ctx, e.CronJob, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return &schedule{}, nil
	case err != nil:
		return nil,
			fmt.Errorf("%w: check that this identity may get that CronJob, or give --cronjob= if there is none", err)
	case last == nil:
		return &schedule{cron: cron}, nil
	}
	due, err := Due(cron, last.Started)
	if err != nil {
		return nil, err
	}
	return &schedule{cron, due}, nil
}

// schedule is when runs are due.
type schedule struct {
	cron *batchv1.CronJob // nil if it does not exist
	due  time.Time        // zero if the time of the last run is not known
}
