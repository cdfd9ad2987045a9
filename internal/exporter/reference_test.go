package exporter

import (
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// TestMetricsReference verifies that the page lists exactly the metrics of the exporter,
// with their types, labels and values of labels.
func TestMetricsReference(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, page, found := strings.Cut(string(text), "\n## The rotation\n")
	if !found {
		t.Fatal("the page has no section about the rotation")
	}
	type metric struct{ Type, Labels string }
	documented, sentences := map[string]metric{}, map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*?) ?\\| ([^|]+) \\|$")
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		if documented[m[1]] != (metric{}) {
			t.Errorf("%s is listed twice", m[1])
		}
		documented[m[1]] = metric{m[2], strings.NewReplacer("`", "", ",", "").Replace(m[3])}
		sentences[m[1]] = m[4]
		if !strings.HasSuffix(m[4], ".") {
			t.Errorf("%s has no sentence: %q", m[1], m[4])
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(full(t))
	families, err := prometheus.Gatherers{New(Config{Version: "v1", Log: slog.New(slog.DiscardHandler)}).process,
		registry}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	const prefix = namespace + "_" + subsystem + "_"
	actual := map[string]metric{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), prefix) {
			continue
		}
		if !model.LegacyValidation.IsValidMetricName(f.GetName()) {
			t.Errorf("%s is not a valid metric name", f.GetName())
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		actual[f.GetName()] = metric{strings.ToLower(f.GetType().String()), strings.Join(labels, " ")}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "transit_mount", "transit_key", "version", "goversion":
				default:
					sentence := sentences[f.GetName()]
					if !strings.Contains(sentence, "`"+l.GetValue()+"`") &&
						!strings.Contains(sentence, "errors.md#of-a-rotation") { // which has all values
						t.Errorf("%s: the page does not describe %s=%q", f.GetName(), l.GetName(), l.GetValue())
					}
				}
			}
		}
	}
	if diff := cmp.Diff(actual, documented); diff != "" {
		t.Errorf("(-code +page):\n%s", diff)
	}
	if want := len(all) + 1; len(actual) != want {
		t.Errorf("%d metrics, want %d", len(actual), want)
	}
}
