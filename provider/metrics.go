package provider

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/httpserver"
	"github.com/secretmanager-io/secretmanager/internal/unixsocket"
	"github.com/secretmanager-io/secretmanager/transit"
)

// metrics are what a provider counts, in a registry of its own.
// docs/reference/metrics.md has all of them.
//
// The set of series never changes: each is there from the start with 0, so that
// the first failure is an increase like any other, and no label has a value from
// outside, such as the name of a pod or of a key. On the way of a mount that is
// answered from memory no child is looked up by its labels.
type metrics struct {
	registry *prometheus.Registry

	inFlight                       prometheus.Gauge
	mounts                         map[*failure.Reason]prometheus.Counter // nil: success
	fromVault, fromCache, fromNone prometheus.Observer
	newMountsFailed                prometheus.Counter

	vaultRequests *prometheus.CounterVec
	vaultDuration *prometheus.HistogramVec
	logins        *prometheus.CounterVec
	loginHits     prometheus.Counter
	loginMisses   prometheus.Counter

	kubernetesRequests *prometheus.CounterVec
	kubernetesDuration prometheus.Histogram

	auditWritten, auditLost prometheus.Counter
	insecureHTTP            prometheus.Gauge

	panics prometheus.Counter

	socket atomic.Pointer[unixsocket.Socket] // nil until the provider is served
}

const (
	namespace = "secretmanager"
	subsystem = "provider"
)

// Values of labels.
const (
	resultSuccess = "success"
	resultDenied  = "denied"
	resultFailure = "failure"

	sourceNone = "none" // a mount that failed before its source was decided
)

// vaultOperations are those that a mount has Vault do.
var vaultOperations = []transit.Operation{transit.OpLogin, transit.OpDecrypt}

// statusClasses are all that statusClass returns.
var statusClasses = []string{"2xx", "3xx", "4xx", "5xx", "none"}

// statusClass returns the class of an HTTP status; 0 is no answer. What HTTP
// does not have as the end of a request is the server's mistake.
func statusClass(status int) string {
	switch {
	case status == 0:
		return "none"
	case status >= 200 && status < 300:
		return "2xx"
	case status >= 300 && status < 400:
		return "3xx"
	case status >= 400 && status < 500:
		return "4xx"
	}
	return "5xx"
}

// Buckets in seconds. A mount from memory takes less than 0.3 ms, one that is
// given up a little more than 25 s; few, because there are many nodes.
var (
	mountBuckets   = []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30}
	requestBuckets = mountBuckets[2:]
)

func newMetrics(buildVersion string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.inFlight = m.gauge("mounts_in_flight", "Mounts under way.")
	mounts := m.counters("mounts_total", "Finished mounts, by the reason of the failure.", "result", "reason")
	m.mounts = map[*failure.Reason]prometheus.Counter{nil: mounts.WithLabelValues(resultSuccess, reasonOK)}
	for _, reason := range failure.All() {
		m.mounts[reason] = mounts.WithLabelValues(resultFailure, reason.String())
	}
	m.newMountsFailed = m.counter("new_mounts_failed_total",
		"Mounts that failed of volumes that this process has never mounted: their pods cannot start.")
	duration := m.histograms("mount_duration_seconds", "How long mounts took, by where the answer came from.",
		mountBuckets, "source")
	m.fromVault, m.fromCache, m.fromNone = duration.WithLabelValues(sourceVault), duration.WithLabelValues(sourceCache),
		duration.WithLabelValues(sourceNone)

	m.vaultRequests = m.counters("vault_requests_total",
		"Requests to Vault, each try, by the class of the answer's HTTP status.", "operation", "status_class")
	m.vaultDuration = m.histograms("vault_request_duration_seconds", "How long requests to Vault took, each try.",
		requestBuckets, "operation")
	for _, op := range vaultOperations {
		for _, class := range statusClasses {
			m.vaultRequests.WithLabelValues(string(op), class)
		}
		m.vaultDuration.WithLabelValues(string(op))
	}
	m.logins = m.counters("logins_total", "Logins to Vault, with all their tries, by what became of them.", "result")
	for _, result := range []string{resultSuccess, resultDenied, resultFailure} {
		m.logins.WithLabelValues(result)
	}
	m.loginHits = m.counter("login_cache_hits_total", "Vault tokens that were at hand when a mount needed one.")
	m.loginMisses = m.counter("login_cache_misses_total",
		"Vault tokens that took a login, or waiting for one, when a mount needed one.")

	m.kubernetesRequests = m.counters("kubernetes_requests_total",
		"Reads of Secrets from the API server, each try, by the class of the answer's HTTP status.", "status_class")
	for _, class := range statusClasses {
		m.kubernetesRequests.WithLabelValues(class)
	}
	kubernetesDuration := m.histograms("kubernetes_request_duration_seconds",
		"How long reads of Secrets from the API server took, each try.", requestBuckets)
	m.kubernetesDuration = kubernetesDuration.WithLabelValues().(prometheus.Histogram)

	audit := m.counters("audit_records_total", "Audit records, by whether they were written or lost.", "result")
	m.auditWritten, m.auditLost = audit.WithLabelValues("written"), audit.WithLabelValues("lost")

	m.insecureHTTP = m.gauge("insecure_http",
		"1 if an address of Vault is plain HTTP outside the loopback interface, else 0.")
	m.panics = m.counter("panics_total", "Panics in calls of the driver.")
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: "socket_owned",
			Help: "1 while the path of the driver's socket leads to this process."}, m.socketOwned))
	m.gauges("build_info", "1, with the version of the provider and of Go.", "version", "goversion").
		WithLabelValues(buildVersion, runtime.Version()).Set(1)
	return m
}

// socketOwned is 0 where another process has put its own socket at the path, and
// gets the driver's calls with the tokens of pods.
func (m *metrics) socketOwned() float64 {
	if s := m.socket.Load(); s != nil && s.Owned() {
		return 1
	}
	return 0
}

// watch adds what is read from the caches when somebody asks for it.
func (m *metrics) watch(l *logins, c *republished) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name,
				Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		m.registry.MustRegister(
			prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name,
				Help: help}, value))
	}
	gauge("login_cache_entries", "Vault tokens in memory, and logins under way.",
		func() float64 { return float64(l.held()) })
	gauge("republish_cache_entries", "Answers kept to be given again.",
		func() float64 { return float64(c.stats().entries) })
	gauge("republish_cache_bytes", "Memory that they take.", func() float64 { return float64(c.stats().bytes) })
	gauge("republish_cache_limit_bytes", "Memory that they may take; 0 if none are kept.",
		func() float64 { return float64(c.stats().limit) })
	counter("republish_cache_hits_total", "Mounts that were answered from memory.",
		func() float64 { return float64(c.stats().hits) })
	counter("republish_cache_misses_total",
		"Mounts whose answer was not in memory, or not any more, or with other inputs.",
		func() float64 { return float64(c.stats().misses) })
	counter("republish_cache_evictions_total", "Answers that were dropped, or not kept, for want of room.",
		func() float64 { return float64(c.stats().evictions) })
}

func (m *metrics) gauge(name, help string) prometheus.Gauge {
	return m.gauges(name, help).WithLabelValues()
}

func (m *metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name,
		Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	return m.counters(name, help).WithLabelValues()
}

func (m *metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name,
		Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

// histograms are of both kinds: a Prometheus that takes native ones gets those
// besides, in the format that has them.
func (m *metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
	m.registry.MustRegister(v)
	return v
}

// mountDone counts a mount that is over.
func (m *metrics) mountDone(reason *failure.Reason, source string, took time.Duration) {
	m.inFlight.Dec()
	m.mounts[reason].Inc()
	of := m.fromNone
	switch source {
	case sourceCache:
		of = m.fromCache
	case sourceVault:
		of = m.fromVault
	}
	of.Observe(took.Seconds())
}

func (m *metrics) vaultRequest(op transit.Operation, status int, took time.Duration) {
	m.vaultRequests.WithLabelValues(string(op), statusClass(status)).Inc()
	m.vaultDuration.WithLabelValues(string(op)).Observe(took.Seconds())
}

func (m *metrics) loggedIn(err error) {
	result := resultFailure
	switch {
	case err == nil:
		result = resultSuccess
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		result = resultDenied
	}
	m.logins.WithLabelValues(result).Inc()
}

// vaultToken counts what a mount had to do for a Vault token.
func (m *metrics) vaultToken(atHand bool) {
	if atHand {
		m.loginHits.Inc()
		return
	}
	m.loginMisses.Inc()
}

func (m *metrics) kubernetesRequest(status int, took time.Duration) {
	m.kubernetesRequests.WithLabelValues(statusClass(status)).Inc()
	m.kubernetesDuration.Observe(took.Seconds())
}

// Metrics serves /metrics, in whichever of Prometheus' formats is asked for.
func (p *Provider) Metrics() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", httpserver.Metrics(func(context.Context) ([]*dto.MetricFamily, error) {
		return p.metrics.registry.Gather()
	}))
	return mux
}
