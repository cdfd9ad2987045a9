package monitoring

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/internal/exporter"
	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/transit"
)

// foreign are the metrics of other projects in our queries, with their labels.
var foreign = map[string][]string{
	"up": nil, // from Prometheus
	// from kube-state-metrics
	"kube_daemonset_status_number_unavailable": {"daemonset"},
}

// targetLabels are the labels that Prometheus or a PodMonitor adds to every series.
var targetLabels = []string{"instance", "job", "namespace", "node", "pod"}

// A query is an expression and its location.
type query struct{ location, expr string }

// queries returns the queries of the alerts, the dashboard and the pages.
func queries(t *testing.T) (all []query) {
	t.Helper()
	for _, r := range alerts(t) {
		all = append(all, query{"alert " + r.Alert, r.Expr})
	}
	// Grafana replaces these variables.
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	for _, p := range dashboard(t).panels() {
		for _, target := range p.Targets {
			all = append(all, query{"panel " + p.Title, variables.Replace(target.Expr)})
		}
	}
	block := regexp.MustCompile("(?ms)^```promql\n(.*?)^```$")
	pages := 0
	err := filepath.WalkDir(pathOf(t, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range block.FindAllStringSubmatch(string(text), -1) {
			pages++
			for _, paragraph := range strings.Split(m[1], "\n\n") {
				all = append(all, query{filepath.Base(path), paragraph}) // PromQL has comments
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages < 5 {
		t.Errorf("the pages have only %d blocks of PromQL", pages)
	}
	return all
}

// families returns the metrics of a provider and of an exporter, with the metrics of an exporter after some runs.
func families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	silent := slog.New(slog.DiscardHandler)
	p, err := provider.New(provider.Config{Vault: transit.Config{Address: "http://127.0.0.1:1"}, Audience: "vault",
		Log:        silent,
		VersionKey: bytes.Repeat([]byte{1}, 32), RepublishCacheBytes: provider.DefaultRepublishCacheBytes})
	if err != nil {
		t.Fatal(err)
	}
	kube, err := kubernetes.NewForConfig(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	e := exporter.New(exporter.Config{Kube: kube, Namespace: "ns", CronJob: "c", Version: "v1", Log: silent})
	all := map[string]*dto.MetricFamily{}
	add := func(text string) {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		parsed, err := parser.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range parsed {
			all[name] = f
		}
	}
	for _, handler := range []http.Handler{p.Metrics(), e.Handler()} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK {
			t.Fatalf("HTTP %d: %s", w.Code, w.Body)
		}
		add(w.Body.String())
	}
	add(read(t, "internal/exporter/testdata/metrics.prom"))
	return all
}

// A result is the output of the program promql for an expression.
type result struct {
	Error     string
	Selectors []struct {
		Metric   string
		Matchers []struct{ Label, Op, Value string }
	}
	Labels []string
}

// TestQueriesSelectExistingSeries: each query parses, has only existing metrics and labels, and selects at least one
// series.
func TestQueriesSelectExistingSeries(t *testing.T) {
	all, existing := queries(t), families(t)
	var expressions []string
	for _, q := range all {
		expressions = append(expressions, q.expr)
	}
	text, err := json.Marshal(expressions)
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(t, string(text), "promql")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var results []result
	if err := json.Unmarshal([]byte(out), &results); err != nil || len(results) != len(all) {
		t.Fatalf("%v, %d results of %d queries", err, len(results), len(all))
	}
	for i, q := range all {
		if problems := checkQuery(results[i], existing); len(problems) > 0 {
			t.Errorf("%s: %s\n%s", q.location, q.expr, strings.Join(problems, "\n"))
		}
	}
}

func checkQuery(a result, existing map[string]*dto.MetricFamily) (problems []string) {
	if a.Error != "" {
		return []string{a.Error}
	}
	if len(a.Selectors) == 0 {
		return []string{"it selects no metric"}
	}
	known := slices.Concat(targetLabels, []string{"le"})
	for _, s := range a.Selectors {
		labels, isForeign := foreign[s.Metric]
		f := existing[s.Metric]
		if f == nil {
			f = existing[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(s.Metric, "")]
			if f.GetType() != dto.MetricType_HISTOGRAM {
				f = nil
			}
		} else if f.GetType() == dto.MetricType_HISTOGRAM {
			problems = append(problems, s.Metric+" is a histogram: select its buckets, sum or count")
		}
		if f == nil && !isForeign {
			problems = append(problems, "no metric "+s.Metric)
			continue
		}
		if f != nil {
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
		}
		known = append(known, labels...)
		for _, m := range s.Matchers {
			if !slices.Contains(labels, m.Label) && !slices.Contains(targetLabels, m.Label) {
				problems = append(problems, s.Metric+" has no label "+m.Label)
			}
		}
		if f != nil && !slices.ContainsFunc(f.GetMetric(), func(series *dto.Metric) bool {
			return !slices.ContainsFunc(s.Matchers, func(m struct{ Label, Op, Value string }) bool {
				return slices.Contains(labels, m.Label) && !matches(series, m.Label, m.Op, m.Value)
			})
		}) {
			problems = append(problems, "no series of "+s.Metric+" matches")
		}
	}
	for _, l := range a.Labels {
		if !slices.Contains(known, l) {
			problems = append(problems, "no selected series has a label "+l)
		}
	}
	return problems
}

func matches(series *dto.Metric, label, op, value string) bool {
	got := ""
	for _, l := range series.GetLabel() {
		if l.GetName() == label {
			got = l.GetValue()
		}
	}
	equal := got == value
	if strings.HasSuffix(op, "~") {
		equal = regexp.MustCompile("^(?:" + value + ")$").MatchString(got)
	}
	return equal != strings.HasPrefix(op, "!")
}

// TestCheckQuery: TestQueriesSelectExistingSeries would find these problems.
func TestCheckQuery(t *testing.T) {
	existing := families(t)
	for expr, want := range map[string]string{
		`secretmanager_provider_mounts_total`:                                  "",
		`sum by (reason) (secretmanager_provider_mounts_total{reason!="OK"})`:  "",
		`secretmanager_provider_mount_duration_seconds_bucket{source="vault"}`: "",
		`up{job="x"} == 0`:                                                  "",
		`secretmanager_provider_mounts`:                                     "no metric secretmanager_provider_mounts",
		`secretmanager_provider_panics_total_count`:                         "no metric",
		`secretmanager_provider_mount_duration_seconds`:                     "is a histogram",
		`secretmanager_provider_mounts_total{code="x"}`:                     "has no label code",
		`secretmanager_provider_mounts_total{reason="internal"}`:            "no series of",
		`secretmanager_provider_mounts_total{reason="OK",result="failure"}`: "no series of",
		`secretmanager_rotation_last_run_result{result=~"fail|stop"}`:       "no series of",
		`sum by (code) (secretmanager_provider_mounts_total)`:               "has a label code",
		`1 + 1`:  "it selects no metric",
		`sum by`: "parse error",
	} {
		text, err := json.Marshal([]string{expr})
		if err != nil {
			t.Fatal(err)
		}
		out, err := run(t, string(text), "promql")
		if err != nil {
			t.Fatal(err)
		}
		var results []result
		if err := json.Unmarshal([]byte(out), &results); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(checkQuery(results[0], existing), "; ")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
