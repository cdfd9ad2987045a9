package provider

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

const ours = namespace + "_" + subsystem + "_"

// families returns the provider's own metrics.
func families(t testing.TB, p *Provider) []*dto.MetricFamily {
	t.Helper()
	all, err := p.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), ours) })
}

// series returns the value of each series by its name, without the common prefix, and its
// labels; for a histogram, the number of observations.
func series(t testing.TB, p *Provider) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for _, f := range families(t, p) {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), ours)
			if len(m.GetLabel()) > 0 {
				var labels []string
				for _, l := range m.GetLabel() {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
				name += "{" + strings.Join(labels, ",") + "}"
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				values[name] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				values[name] = m.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				values[name] = float64(m.GetHistogram().GetSampleCount())
			default:
				t.Errorf("%s is a %s", name, f.GetType())
			}
		}
	}
	return values
}

// since returns the increase of each series, except the size of the cache and the audit
// records, which are written after the mount.
func since(t testing.TB, p *Provider, before map[string]float64) map[string]float64 {
	t.Helper()
	grown := map[string]float64{}
	for name, value := range series(t, p) {
		if value != before[name] && name != "republish_cache_bytes" && !strings.HasPrefix(name, "audit_records_total") {
			grown[name] = value - before[name]
		}
	}
	return grown
}

// failed returns the series that a failed mount increases, and more.
func failed(reason *failure.Reason, source string, more map[string]float64) map[string]float64 {
	return sum(failedAgain(reason, source, more), map[string]float64{"new_mounts_failed_total": 1})
}

// failedAgain returns the series that a failed mount of a mounted volume increases.
func failedAgain(reason *failure.Reason, source string, more map[string]float64) map[string]float64 {
	m := map[string]float64{fmt.Sprintf("mounts_total{reason=%s,result=failure}", reason): 1,
		"mount_duration_seconds{source=" + source + "}": 1}
	maps.Copy(m, more)
	return m
}

// requests returns the series that one request to Vault increases.
func requests(op, class string) map[string]float64 {
	return map[string]float64{"vault_requests_total{operation=" + op + ",status_class=" + class + "}": 1,
		"vault_request_duration_seconds{operation=" + op + "}": 1}
}

func sum(of ...map[string]float64) map[string]float64 {
	total := map[string]float64{}
	for _, m := range of {
		for name, n := range m {
			total[name] += n
		}
	}
	return total
}

// TestMetricsOfMounts verifies which series each mount increases, with a real Vault and a
// real API server, and that no others change.
func TestMetricsOfMounts(t *testing.T) {
	e := newEnv(t)
	kube := e.withAPIServer()
	kube.CreateSecret(e.ciphertextSecret("x", "v"))
	kube.AllowGet("app", "matrix", "absent")
	s := serve(t, e.Vault.Address, cached, readWith(t, kube.API.Kubeconfig))
	entries := e.entries(t, "v")
	asPod := e.asPod(kube.API)

	mountOK := map[string]float64{"mounts_total{reason=OK,result=success}": 1}
	fromVault := sum(mountOK, map[string]float64{"mount_duration_seconds{source=vault}": 1,
		"republish_cache_misses_total": 1})
	fromCache := sum(mountOK, map[string]float64{"mount_duration_seconds{source=cache}": 1,
		"republish_cache_hits_total": 1})
	tokenHit := map[string]float64{"login_cache_hits_total": 1}
	tokenMiss := map[string]float64{"login_cache_misses_total": 1}
	login := sum(requests("login", "2xx"), tokenMiss,
		map[string]float64{"logins_total{result=success}": 1, "login_cache_entries": 1})
	kept := map[string]float64{"republish_cache_entries": 1}
	read := func(class string) map[string]float64 {
		return map[string]float64{"kubernetes_requests_total{status_class=" + class + "}": 1,
			"kubernetes_request_duration_seconds": 1}
	}
	miss := map[string]float64{"republish_cache_misses_total": 1}
	for _, test := range []struct {
		name    string
		params  map[string]string
		entries map[string]string
		want    map[string]float64
	}{
		{"cold", e.params(), entries, sum(fromVault, login, requests("decrypt", "2xx"), kept)},
		{"repeated", e.params(), entries, fromCache},
		{"repeated again", e.params(), entries, fromCache},
		{"another class of the pod", e.params(class.AttributeClass, "second"), entries,
			sum(fromVault, requests("decrypt", "2xx"), tokenHit)},
		{"another pod of the service account", e.params(class.AttributePodUID, "uid-1"), entries,
			sum(fromVault, login, requests("decrypt", "2xx"), kept)},
		{"token of another pod",
			e.params(class.AttributePodUID, "", class.AttributeTokens, e.vaultToken(e.namespace, "app", "vault")),
			entries, failed(failure.TokenMismatch, "none", nil)},
		{"read as the pod", e.params(asPod...), nil, sum(fromVault, read("2xx"), login, requests("decrypt", "2xx"), kept)},
		{"read as the pod, repeated", e.params(asPod...), nil, sum(fromCache, read("2xx"))},
		{"no such Secret", e.params(append(asPod, "secretName", "absent")...),
			nil, failedAgain(failure.SecretNotFound, "none", read("4xx"))},
		{"bad parameters", e.params("scope", "wide"), entries, failedAgain(failure.InvalidParameters, "none", nil)},
		{"no ciphertext", e.params(), nil, failedAgain(failure.CiphertextMissing, "none", nil)},
		{"refused login", e.params(class.AttributeAccount, "intruder", class.AttributePodUID, "uid-3"), entries,
			failed(failure.LoginDenied, "vault",
				sum(requests("login", "4xx"), tokenMiss, miss, map[string]float64{"logins_total{result=denied}": 1}))},
		{"entry that does not open", e.params("scope", "namespace", class.AttributePodUID, "uid-3"), entries,
			failed(failure.CiphertextMismatch, "vault", sum(login, requests("decrypt", "4xx"), miss))},
		// The token may have expired, or the role may have been fixed: the request is repeated with a
		// new token, which is dropped too.
		{"refused decrypt", e.params("transitKey", "another", class.AttributePodUID, "uid-3"), entries,
			failed(failure.DecryptDenied, "vault",
				sum(requests("decrypt", "4xx"), requests("decrypt", "4xx"), requests("login", "2xx"), tokenHit, tokenMiss, miss,
					map[string]float64{"logins_total{result=success}": 1, "login_cache_entries": -1}))},
		{"other inputs", e.params("objects", "- {objectName: x}"), entries,
			sum(fromVault, requests("decrypt", "2xx"), tokenHit)},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := series(t, s.provider)
			_, err := s.Mount(t.Context(), mountRequest(test.params, test.entries))
			if fails := test.want["mounts_total{reason=OK,result=success}"] == 0; (err != nil) != fails {
				t.Error(err)
			}
			if diff := cmp.Diff(test.want, since(t, s.provider, before)); diff != "" {
				t.Errorf("(-want +counted):\n%s", diff)
			}
		})
	}
	end := series(t, s.provider)
	if end["republish_cache_bytes"] <= 3*republishEntry ||
		end["republish_cache_limit_bytes"] != DefaultRepublishCacheBytes {
		t.Errorf("%v bytes of %v", end["republish_cache_bytes"], end["republish_cache_limit_bytes"])
	}
}

func TestMountsInFlight(t *testing.T) {
	e := newEnv(t)
	reached, release := make(chan struct{}), make(chan struct{})
	s := serve(t, e.faulty(func(_ http.ResponseWriter, r *http.Request) bool {
		if isLogin(r) {
			close(reached)
			<-release
		}
		return false
	}))
	entries := e.entries(t, "v")
	done := make(chan error, 1)
	go func() {
		_, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
		done <- err
	}()
	<-reached
	if n := series(t, s.provider)["mounts_in_flight"]; n != 1 {
		t.Errorf("%v mounts in progress", n)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := series(t, s.provider)["mounts_in_flight"]; n != 0 {
		t.Errorf("%v mounts in progress after the last", n)
	}
}

// TestMetricOfTheSocket verifies that the metric shows which process receives the driver's calls.
func TestMetricOfTheSocket(t *testing.T) {
	p := plainProvider(t)
	owned := func(when string, p *Provider, want float64) {
		t.Helper()
		if got := series(t, p)["socket_owned"]; got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	owned("before it listens", p, 0)
	endpoint := filepath.Join(t.TempDir(), "p.sock")
	listen := func(p *Provider) *Server {
		t.Helper()
		s, err := Listen(endpoint, p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.socket.Close() })
		return s
	}
	listen(p)
	owned("listening", p, 1)
	next := plainProvider(t)
	listen(next)
	owned("replaced", p, 0)
	owned("the next one", next, 1)
	planted := endpoint + ".planted"
	l, err := net.Listen("unix", planted)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Rename(planted, endpoint); err != nil {
		t.Fatal(err)
	}
	owned("another program's socket in its place", next, 0)
	last := plainProvider(t)
	listen(last)
	owned("taken back", last, 1)
	if err := os.Remove(endpoint); err != nil {
		t.Fatal(err)
	}
	owned("removed", last, 0)
}

func TestRepublishStats(t *testing.T) {
	const limit = 4 << 10
	c := newRepublishCache(limit)
	want := func(when string, want republishStats) {
		t.Helper()
		got := c.stats()
		got.bytes = 0
		if got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	small, large := responseOf(strings.Repeat("x", 1<<10)), responseOf(strings.Repeat("x", limit))
	c.put(keyOf(1, 1), small)
	c.put(keyOf(2, 1), small)
	want("two that have room", republishStats{entries: 2, limit: limit})
	c.put(keyOf(3, 1), small)
	want("one more", republishStats{entries: 2, limit: limit, evictions: 1})
	c.put(keyOf(4, 1), large)
	want("one that has no room", republishStats{entries: 2, limit: limit, evictions: 2})
	c.put(keyOf(3, 2), small)
	want("a new answer of the same volume", republishStats{entries: 2, limit: limit, evictions: 2})
	c.get(keyOf(3, 2))
	want("one that is there", republishStats{entries: 2, limit: limit, hits: 1, evictions: 2})
	c.get(keyOf(1, 1))
	want("one that is gone", republishStats{entries: 2, limit: limit, hits: 1, misses: 1, evictions: 2})
	c.get(keyOf(3, 1))
	want("other inputs", republishStats{entries: 1, limit: limit, hits: 1, misses: 2, evictions: 2})
	if (*republishCache)(nil).stats() != (republishStats{}) {
		t.Error("a disabled cache has metrics")
	}
}

func TestStatusClass(t *testing.T) {
	for status, want := range map[int]string{0: "none", 101: "5xx", 200: "2xx", 204: "2xx", 307: "3xx", 400: "4xx",
		429: "4xx", 500: "5xx", 503: "5xx", 999: "5xx"} {
		if got := statusClass(status); got != want {
			t.Errorf("%d is %s, want %s", status, got, want)
		}
	}
}
