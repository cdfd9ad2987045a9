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

// foreign are the metrics of others that we ask for, with their labels.
var foreign = map[string][]string{
	"up": nil, // Prometheus' own
	// kube-state-metrics'
	"kube_daemonset_status_number_unavailable": {"daemonset"},
}

// targetLabels are those that Prometheus gives to whatever it scrapes, or that
// PodMonitors add.
var targetLabels = []string{"instance", "job", "namespace", "node", "pod"}

// A query is an expression, and where it stands.
type query struct{ place, expr string }

// queries are all of the alerts, the dashboard and the pages.
func queries(t *testing.T) (all []query) {
	t.Helper()
	for _, r := range alerts(t) {
		all = append(all, query{"alert " + r.Alert, r.Expr})
	}
	// Grafana puts in what these stand for.
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	for _, p := range dashboard(t).panels() {
		for _, target := range p.Targets {
			all = append(all, query{"panel " + p.Title, variables.Replace(target.Expr)})
		}
	}
	block := regexp.MustCompile("(?ms)^```promql\n(.*?)^```$")
	pages := 0
	err := filepath.WalkDir(in(t, "docs"), func(path string, d fs.DirEntry, err error) error {
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
				all = append(all, query{filepath.Base(path), paragraph}) // comments are part of the language
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pages < 5 {
		t.Errorf("only %d blocks of PromQL were found in the pages", pages)
	}
	return all
}

// families are the metrics that there are: those that a provider and an exporter
// serve, and those that an exporter makes of runs.
func families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	silent := slog.New(slog.DiscardHandler)
	p, err := provider.New(provider.Config{Vault: transit.Config{Address: "http://127.0.0.1:1"}, Audience: "vault", Log: silent,
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

// answer is what the program promql says of an expression.
type answer struct {
	Error     string
	Selectors []struct {
		Metric   string
		Matchers []struct{ Label, Op, Value string }
	}
	Labels []string
}

// TestQueriesAskForWhatExists: each query parses, names metrics and labels that
// there are, and selects at least one of their series.
func TestQueriesAskForWhatExists(t *testing.T) {
	all, there := queries(t), families(t)
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
	var answers []answer
	if err := json.Unmarshal([]byte(out), &answers); err != nil || len(answers) != len(all) {
		t.Fatalf("%v, %d answers to %d queries", err, len(answers), len(all))
	}
	for i, q := range all {
		if problems := judge(answers[i], there); len(problems) > 0 {
			t.Errorf("%s: %s\n%s", q.place, q.expr, strings.Join(problems, "\n"))
		}
	}
}

func judge(a answer, there map[string]*dto.MetricFamily) (problems []string) {
	if a.Error != "" {
		return []string{a.Error}
	}
	if len(a.Selectors) == 0 {
		return []string{"it asks for no metric"}
	}
	known := slices.Concat(targetLabels, []string{"le"})
	for _, s := range a.Selectors {
		labels, isForeign := foreign[s.Metric]
		f := there[s.Metric]
		if f == nil {
			f = there[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(s.Metric, "")]
			if f.GetType() != dto.MetricType_HISTOGRAM {
				f = nil
			}
		} else if f.GetType() == dto.MetricType_HISTOGRAM {
			problems = append(problems, s.Metric+" is a histogram: which of its parts?")
		}
		if f == nil && !isForeign {
			problems = append(problems, "there is no metric "+s.Metric)
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
			problems = append(problems, "no series of "+s.Metric+" is like that")
		}
	}
	for _, l := range a.Labels {
		if !slices.Contains(known, l) {
			problems = append(problems, "nothing that it asks for has a label "+l)
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

// TestJudge: what the test above is there to find.
func TestJudge(t *testing.T) {
	there := families(t)
	for expr, want := range map[string]string{
		`secretmanager_provider_mounts_total`:                                  "",
		`sum by (reason) (secretmanager_provider_mounts_total{reason!="OK"})`:  "",
		`secretmanager_provider_mount_duration_seconds_bucket{source="vault"}`: "",
		`up{job="x"} == 0`:                                                  "",
		`secretmanager_provider_mounts`:                                     "there is no metric secretmanager_provider_mounts",
		`secretmanager_provider_panics_total_count`:                         "there is no metric",
		`secretmanager_provider_mount_duration_seconds`:                     "is a histogram",
		`secretmanager_provider_mounts_total{code="x"}`:                     "has no label code",
		`secretmanager_provider_mounts_total{reason="internal"}`:            "no series of secretmanager_provider_mounts_total is like that",
		`secretmanager_provider_mounts_total{reason="OK",result="failure"}`: "no series of",
		`secretmanager_rotation_last_run_result{result=~"fail|stop"}`:       "no series of",
		`sum by (code) (secretmanager_provider_mounts_total)`:               "has a label code",
		`1 + 1`:  "it asks for no metric",
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
		var answers []answer
		if err := json.Unmarshal([]byte(out), &answers); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(judge(answers[0], there), "; ")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
