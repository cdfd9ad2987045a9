// Package exporter tells Prometheus how the rotator's runs went.
//
// A run ends, so nobody can scrape it, and what it pushed to a gateway would be
// told there for ever as if it were true. But each run leaves a summary in the
// ConfigMap [rotator.StateName]. The exporter is a small program that always runs:
// at each scrape it reads that ConfigMap, and the CronJob for when the next run is
// due, and answers with what they say. It keeps nothing in between. What it cannot
// read it leaves out, and says so in secretmanager_rotation_read_success: Prometheus
// then takes the series for gone, and nothing old passes for fresh.
//
// It may read these two objects by their names and nothing else: no Secret, and
// nothing of Vault. docs/reference/metrics.md has all of its metrics.
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
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/httpserver"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// readTimeout is how long reading may take: less than the ten seconds that
// Prometheus waits unless told otherwise, so that it is told what is wrong.
const readTimeout = 5 * time.Second

// Config says what to read.
type Config struct {
	Kube      kubernetes.Interface
	Namespace string // of the ConfigMap and of the CronJob
	CronJob   string // its name; empty if something else starts the runs
	Version   string // of this build
	Log       *slog.Logger
}

// An Exporter serves the metrics. It may be used from several goroutines at once.
type Exporter struct {
	Config
	process *prometheus.Registry // what does not depend on the two objects
}

// New returns an Exporter. It reads nothing yet.
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
//	/metrics  in whichever of Prometheus' formats is asked for
//	/healthz  200 while the process can answer at all; an API server that is away
//	          is no reason to start it again
func (e *Exporter) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", httpserver.Metrics(func(ctx context.Context) ([]*dto.MetricFamily, error) {
		fresh := prometheus.NewRegistry()
		fresh.MustRegister(e.read(ctx))
		return prometheus.Gatherers{e.process, fresh}.Gather()
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// read looks at both objects. One that is not there is an answer too: there was no
// run yet, nothing starts one.
func (e *Exporter) read(ctx context.Context) *snapshot {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var s snapshot
	summary, err := e.summary(ctx)
	if err != nil {
		e.Log.Error("reading how the runs went", "configmap", e.Namespace+"/"+rotator.StateName, "error", err)
	} else {
		s.summary = summary
	}
	if e.CronJob == "" {
		return &s
	}
	s.scheduled = true
	if s.schedule, err = e.schedule(ctx, s.summary); err != nil {
		e.Log.Error("reading when the next run is due", "cronjob", e.Namespace+"/"+e.CronJob, "error", err)
	}
	return &s
}

func (e *Exporter) summary(ctx context.Context) (*rotator.Summary, error) {
	m, err := e.Kube.CoreV1().ConfigMaps(e.Namespace).Get(ctx, rotator.StateName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		m, err = &corev1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: check that this identity may get that ConfigMap", err)
	}
	return rotator.ReadSummary(m)
}

func (e *Exporter) schedule(ctx context.Context, last *rotator.Summary) (*schedule, error) {
	cron, err := e.Kube.BatchV1().CronJobs(e.Namespace).Get(ctx, e.CronJob, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return &schedule{}, nil
	case err != nil:
		return nil,
			fmt.Errorf("%w: check that this identity may get that CronJob, or give --cronjob= where there is none", err)
	case last == nil:
		return &schedule{cron: cron}, nil
	}
	due, err := due(cron, last.Started)
	if err != nil {
		return nil, err
	}
	return &schedule{cron, due}, nil
}

// schedule is what the CronJob says.
type schedule struct {
	cron *batchv1.CronJob // nil: it is not there
	due  time.Time        // zero: when the last run was is not known
}
