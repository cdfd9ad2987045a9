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

// metrics are the metrics of a provider, in a separate registry. docs/reference/metrics.md lists them.
//
// The set of series is constant. Each series starts at 0, so that the first failure is an increase too, and no label
// has a value from outside, such as the name of a pod or key. A mount with a cached response looks up no series by
// label.
type metrics struct {
	registry *prometheus.Registry

	inFlight                       prometheus.Gauge
	mounts                         map[*failure.Reason]prometheus.Counter // the key of success is nil
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

	sourceNone = "none" // the mount failed before its source was determined
)

// vaultOperations are the operations of a mount in Vault.
var vaultOperations = []transit.Operation{transit.OpLogin, transit.OpDecrypt}

// statusClasses are all results of statusClass.
var statusClasses = []string{"2xx", "3xx", "4xx", "5xx", "none"}

// statusClass returns the class of an HTTP status; 0 means no response. A status that cannot end a request counts as an
// error of the server.
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

// Buckets in seconds. A mount with a cached response takes less than 0.3 ms, one that times out a little more than 25
// s. There are few buckets, because there are many nodes.
var (
	mountBuckets   = []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10, 30}
	requestBuckets = mountBuckets[2:]
)

func newMetrics(buildVersion string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.inFlight = m.gauge("mounts_in_flight", "Mounts in progress.")
	mounts := m.counters("mounts_total", "Finished mounts, by the reason of the failure.", "result", "reason")
	m.mounts = map[*failure.Reason]prometheus.Counter{nil: mounts.WithLabelValues(resultSuccess, reasonOK)}
	for _, reason := range failure.All(failure.Mount) {
		m.mounts[reason] = mounts.WithLabelValues(resultFailure, reason.String())
	}
	m.newMountsFailed = m.counter("new_mounts_failed_total",
		"Failed mounts of volumes that this process has not mounted before: their pods cannot start.")
	duration := m.histograms("mount_duration_seconds", "Duration of mounts, by the source of the response.",
		mountBuckets, "source")
	m.fromVault, m.fromCache, m.fromNone = duration.WithLabelValues(sourceVault), duration.WithLabelValues(sourceCache),
		duration.WithLabelValues(sourceNone)

	m.vaultRequests = m.counters("vault_requests_total",
		"Requests to Vault, including retries, by the class of the HTTP status.", "operation", "status_class")
	m.vaultDuration = m.histograms("vault_request_duration_seconds", "Duration of requests to Vault, including retries.",
		requestBuckets, "operation")
	for _, op := range vaultOperations {
		for _, class := range statusClasses {
			m.vaultRequests.WithLabelValues(string(op), class)
		}
		m.vaultDuration.WithLabelValues(string(op))
	}
	m.logins = m.counters("logins_total", "Logins to Vault, each with its retries, by result.", "result")
	for _, result := range []string{resultSuccess, resultDenied, resultFailure} {
		m.logins.WithLabelValues(result)
	}
	m.loginHits = m.counter("login_cache_hits_total", "Mounts that used a cached Vault token.")
	m.loginMisses = m.counter("login_cache_misses_total",
		"Mounts that logged in, or waited for the login of another mount.")

	m.kubernetesRequests = m.counters("kubernetes_requests_total",
		"Reads of Secrets from the API server, including retries, by the class of the HTTP status.", "status_class")
	for _, class := range statusClasses {
		m.kubernetesRequests.WithLabelValues(class)
	}
	kubernetesDuration := m.histograms("kubernetes_request_duration_seconds",
		"Duration of reads of Secrets from the API server, including retries.", requestBuckets)
	m.kubernetesDuration = kubernetesDuration.WithLabelValues().(prometheus.Histogram)

	audit := m.counters("audit_records_total", "Audit records, by whether they were written or lost.", "result")
	m.auditWritten, m.auditLost = audit.WithLabelValues("written"), audit.WithLabelValues("lost")

	m.insecureHTTP = m.gauge("insecure_http",
		"1 if an address of Vault is plain HTTP outside the loopback interface, otherwise 0.")
	m.panics = m.counter("panics_total", "Panics in calls of the driver.")
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: "socket_owned",
			Help: "1 if the socket at the provider's path belongs to this process, otherwise 0."}, m.socketOwned))
	m.gauges("build_info", "Always 1; the labels have the versions of the provider and of Go.", "version", "goversion").
		WithLabelValues(buildVersion, runtime.Version()).Set(1)
	return m
}

// socketOwned returns 0 if another process has bound its socket to the path and receives the driver's calls, which
// contain the tokens of pods.
func (m *metrics) socketOwned() float64 {
	if s := m.socket.Load(); s != nil && s.Owned() {
		return 1
	}
	return 0
}

// registerCaches adds the metrics that are read from the caches at each scrape.
func (m *metrics) registerCaches(l *logins, c *republishCache) {
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
	gauge("login_cache_entries", "Cached Vault tokens, and logins in progress.",
		func() float64 { return float64(l.count()) })
	gauge("republish_cache_entries", "Cached responses.",
		func() float64 { return float64(c.stats().entries) })
	gauge("republish_cache_bytes", "Size of the cached responses.", func() float64 { return float64(c.stats().bytes) })
	gauge("republish_cache_limit_bytes", "Maximum size of the cached responses; 0 if the cache is disabled.",
		func() float64 { return float64(c.stats().limit) })
	counter("republish_cache_hits_total", "Mounts with a cached response.",
		func() float64 { return float64(c.stats().hits) })
	counter("republish_cache_misses_total",
		"Mounts without a valid cached response for the same inputs.",
		func() float64 { return float64(c.stats().misses) })
	counter("republish_cache_evictions_total", "Responses dropped from the cache, or not cached, because it is full.",
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

// histograms returns histograms with classic buckets and native ones. Prometheus reads the native ones if it is
// configured to.
func (m *metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
	m.registry.MustRegister(v)
	return v
}

// mountFinished counts a finished mount.
func (m *metrics) mountFinished(reason *failure.Reason, source string, took time.Duration) {
	m.inFlight.Dec()
	m.mounts[reason].Inc()
	duration := m.fromNone
	switch source {
	case sourceCache:
		duration = m.fromCache
	case sourceVault:
		duration = m.fromVault
	}
	duration.Observe(took.Seconds())
}

func (m *metrics) vaultRequest(op transit.Operation, status int, took time.Duration) {
	m.vaultRequests.WithLabelValues(string(op), statusClass(status)).Inc()
	m.vaultDuration.WithLabelValues(string(op)).Observe(took.Seconds())
}

func (m *metrics) loginFinished(err error) {
	result := resultFailure
	switch {
	case err == nil:
		result = resultSuccess
	case errors.Is(err, transit.ErrDenied), errors.Is(err, transit.ErrInvalidToken):
		result = resultDenied
	}
	m.logins.WithLabelValues(result).Inc()
}

// loginLookup counts a lookup of a Vault token in the login cache.
func (m *metrics) loginLookup(hit bool) {
	if hit {
		m.loginHits.Inc()
		return
	}
	m.loginMisses.Inc()
}

func (m *metrics) kubernetesRequest(status int, took time.Duration) {
	m.kubernetesRequests.WithLabelValues(statusClass(status)).Inc()
	m.kubernetesDuration.Observe(took.Seconds())
}

// Metrics serves /metrics, in the Prometheus format that the client accepts.
func (p *Provider) Metrics() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", httpserver.Metrics(func(context.Context) ([]*dto.MetricFamily, error) {
		return p.metrics.registry.Gather()
	}))
	return mux
}
