package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/secretmanager-io/secretmanager/transit"
)

// page returns the response of Metrics and its content type.
func page(t testing.TB, p *Provider, accept string) (body, contentType string) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	p.Metrics().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("HTTP %d: %s", w.Code, w.Body)
	}
	return w.Body.String(), w.Header().Get("Content-Type")
}

// TestMetricsPage verifies that Prometheus can parse the page, as text and with
// native histograms.
func TestMetricsPage(t *testing.T) {
	p := plainProvider(t)
	p.metrics.mountFinished(nil, sourceCache, time.Millisecond)
	for _, test := range []struct {
		name, accept string
		native       bool
	}{
		{"text", "text/plain", false},
		{"anything", "", false},
		{"Prometheus with native histograms",
			"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," +
				"text/plain;version=0.0.4;q=0.3", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			body, contentType := page(t, p, test.accept)
			format := expfmt.ResponseFormat(http.Header{"Content-Type": {contentType}})
			decoder := expfmt.NewDecoder(strings.NewReader(body), format)
			names := map[string]*dto.MetricFamily{}
			for {
				var f dto.MetricFamily
				err := decoder.Decode(&f)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names[f.GetName()] = &f
			}
			for _, name := range []string{ours + "mounts_total", ours + "build_info", "go_goroutines",
				"process_resident_memory_bytes"} {
				if names[name] == nil {
					t.Errorf("no %s", name)
				}
			}
			duration := names[ours+"mount_duration_seconds"].GetMetric()
			if len(duration) != 3 {
				t.Fatalf("%d histograms of mounts", len(duration))
			}
			h := duration[0].GetHistogram() // of mounts from the cache
			if h.GetSampleCount() != 1 || len(h.GetBucket()) < len(mountBuckets) ||
				(len(h.GetPositiveSpan()) > 0) != test.native {
				t.Errorf("got %v", h)
			}
		})
	}
}

// TestMetricsReference checks that the page describes every metric, with its type and labels, and no others.
func TestMetricsReference(t *testing.T) {
	whole, err := os.ReadFile("../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	text, _, found := strings.Cut(string(whole), "\n## The rotation\n") // the rest is about the exporter
	if !found {
		t.Error(`the page has no section "The rotation"`)
	}
	type metric struct{ Type, Labels string }
	documented := map[string]metric{}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*?) ?\\| ([^|]+) \\|$")
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		if documented[m[1]] != (metric{}) {
			t.Errorf("%s is documented twice", m[1])
		}
		documented[m[1]] = metric{m[2], strings.NewReplacer("`", "", ",", "").Replace(m[3])}
		if !strings.HasSuffix(m[4], ".") {
			t.Errorf("%s has no sentence: %q", m[1], m[4])
		}
	}
	there := map[string]metric{}
	s := serve(t, "http://127.0.0.1:1", cached)
	for _, f := range families(t, s.provider) {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		there[f.GetName()] = metric{strings.ToLower(f.GetType().String()), strings.Join(labels, " ")}
	}
	if diff := cmp.Diff(there, documented); diff != "" {
		t.Errorf("(-code +page):\n%s", diff)
	}
	body, _ := page(t, s.provider, "")
	n := strings.Count(body, "\n"+ours)
	if !strings.Contains(strings.Join(strings.Fields(text), " "), fmt.Sprintf(" %d series of its own", n)) {
		t.Errorf("the page does not state the number of series, %d", n)
	}
	// Metrics and labels in queries and sentences must exist.
	known := regexp.MustCompile(`_(bucket|sum|count)$`)
	for _, name := range regexp.MustCompile(ours+`\w+`).FindAllString(text, -1) {
		if there[name] == (metric{}) && there[known.ReplaceAllString(name, "")].Type != "histogram" {
			t.Errorf("the page names %s, which does not exist", name)
		}
	}
	for _, label := range regexp.MustCompile(`(?:by|without) ?\(([^)]*)\)|(\w+)[!=]=?~?"`).
		FindAllStringSubmatch(text, -1) {
		for _, name := range strings.FieldsFunc(label[1]+","+label[2], func(r rune) bool { return r == ',' || r == ' ' }) {
			isLabel := slices.ContainsFunc(slices.Collect(maps.Values(there)),
				func(m metric) bool { return slices.Contains(strings.Fields(m.Labels), name) })
			if !isLabel && !slices.Contains([]string{"le", "instance", "job"}, name) {
				t.Errorf("the page names the label %s, which does not exist", name)
			}
		}
	}
	for name := range there {
		if !model.LegacyValidation.IsValidMetricName(name) {
			t.Errorf("%s is not a valid metric name", name)
		}
	}
}

// TestInsecureHTTP verifies that an address that sends tokens unencrypted over a network is rejected,
// or reported if it is accepted.
func TestInsecureHTTP(t *testing.T) {
	for _, test := range []struct {
		address, allowed string
		accepted         bool
		want             float64
	}{
		{"https://vault", "http://127.0.0.1:8200", true, 0},
		{"https://vault", "http://other", true, 1},
		{"http://vault", "https://other", true, 1},
		{"https://vault", "http://other", false, -1},
		{"http://vault", "https://other", false, -1},
	} {
		var log bytes.Buffer
		p, err := New(Config{
			Vault: transit.Config{Address: test.address, InsecureHTTP: test.accepted}, AllowedAddresses: []string{test.allowed},
			VersionKey: make([]byte, versionKeySize), Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if test.want < 0 {
			if !errors.Is(err, transit.ErrPlainHTTP) {
				t.Errorf("%+v: %v", test, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		warned := strings.Contains(log.String(), `level=WARN msg="requests to Vault are not encrypted`)
		if got := series(t, p)["insecure_http"]; got != test.want || warned != (test.want == 1) {
			t.Errorf("%+v: the gauge is %v, the log %s", test, got, log.String())
		}
	}
}

// BenchmarkMetricsOfAMount measures the cost of the metrics of a cached mount.
func BenchmarkMetricsOfAMount(b *testing.B) {
	m := newMetrics("v1")
	b.ReportAllocs()
	for b.Loop() {
		m.inFlight.Inc()
		m.mountFinished(nil, sourceCache, 150*time.Microsecond)
	}
}

// BenchmarkMetricsOfARequest measures the cost of the metrics of a request to Vault.
func BenchmarkMetricsOfARequest(b *testing.B) {
	m := newMetrics("v1")
	b.ReportAllocs()
	for b.Loop() {
		m.vaultRequest(transit.OpDecrypt, 200, time.Millisecond)
	}
}
