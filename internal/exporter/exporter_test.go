package exporter

import (
	"bytes"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/rotator"
)

//go:generate go test -run TestMetrics -update .

var update = flag.Bool("update", false, "write testdata instead of comparing with it")

// full returns a snapshot that has every metric: a key whose retirement is blocked, one
// that could not be read, and one of a run that was stopped.
func full(t *testing.T) *snapshot {
	t.Helper()
	s, err := rotator.ReadSummary(&corev1.ConfigMap{Data: map[string]string{
		"run": `{"started":"2026-01-09T03:00:00Z","finished":"2026-01-09T03:01:30Z","result":"failed",
			"lastDone":"2026-01-08T03:01:00Z","unassigned":{"count":2},"notSelected":{"count":4}}`,
		"transit__app": "c=3@t87v1o",
		"transit__app_report": `{"mount":"transit","name":"app","minDecryption":2,"minAvailable":1,"target":4,"secrets":3,
			"oldest":3,"versions":{"3":3,"4":5},"unresolved":{"count":3},"failed":1,"finished":"2026-01-09T03:01:30Z",
			"unsettled":"2026-01-10T23:00:00Z","notCovered":7,
			"retire":{"from":2,"to":2,"reason":"3 texts still decrypt","blocked":"inUse"}}`,
		"transit__missing_report": `{"mount":"transit","name":"missing","target":0,"versions":{"1":1},"secrets":1,"oldest":1,
			"error":"KeyNotFound: not found","finished":"2026-01-09T03:01:30Z"}`,
		"teams__red__stopped_report": `{"mount":"teams/red","name":"stopped","minDecryption":1,"target":2,"versions":null,
			"finished":"2026-01-08T03:01:30Z"}`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	suspend := true
	cron := &batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *", Suspend: &suspend}}
	next, err := Due(cron, s.Started)
	if err != nil {
		t.Fatal(err)
	}
	return &snapshot{summary: s, scheduled: true, schedule: &schedule{cron, next}}
}

// text returns the metrics of a snapshot in the text format.
func text(t *testing.T, s *snapshot) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// TestMetrics compares the metrics of a snapshot with testdata/metrics.prom, which the
// tests of the alerts use too.
func TestMetrics(t *testing.T) {
	file := filepath.Join("testdata", "metrics.prom")
	got := text(t, full(t))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestUnknownMetricsAreOmitted(t *testing.T) {
	series := func(s *snapshot) (all []string) {
		for line := range strings.Lines(text(t, s)) {
			if !strings.HasPrefix(line, "#") {
				all = append(all, strings.TrimSpace(strings.TrimPrefix(line, "secretmanager_rotation_")))
			}
		}
		return all
	}
	cron := &batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *"}}
	older := &rotator.Summary{Started: time.Unix(100, 0), Finished: time.Unix(160, 0)}
	for name, test := range map[string]struct {
		snapshot *snapshot
		want     []string
	}{
		"nothing could be read": {&snapshot{scheduled: true},
			[]string{`read_success{object="configmap"} 0`, `read_success{object="cronjob"} 0`}},
		"no run yet, no CronJob": {&snapshot{summary: &rotator.Summary{}, scheduled: true, schedule: &schedule{}},
			[]string{`read_success{object="configmap"} 1`, `read_success{object="cronjob"} 1`}},
		"no run yet": {&snapshot{summary: &rotator.Summary{}, scheduled: true, schedule: &schedule{cron, time.Unix(300, 0)}},
			[]string{`due_timestamp_seconds 300`, `read_success{object="configmap"} 1`,
				`read_success{object="cronjob"} 1`, `suspended 0`}},
		"the time of the last run is not known": {&snapshot{scheduled: true, schedule: &schedule{cron: cron}},
			[]string{`read_success{object="configmap"} 0`, `read_success{object="cronjob"} 1`, `suspended 0`}},
		"no CronJob is configured": {&snapshot{summary: &rotator.Summary{}}, []string{`read_success{object="configmap"} 1`}},
		"a run of an older version": {&snapshot{summary: older},
			[]string{`last_run_duration_seconds 60`, `last_run_timestamp_seconds 160`,
				`not_selected 0`, `read_success{object="configmap"} 1`, `unassigned 0`}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, series(test.snapshot)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestAPIServerUnreachable verifies that a scrape succeeds, reports the failure, and has
// no metrics of runs.
func TestAPIServerUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	kube, err := kubernetes.NewForConfig(&rest.Config{Host: "http://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	e := New(Config{Kube: kube, Namespace: "ns", CronJob: "nightly", Version: "v1",
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	get := func(path, accept string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Header.Set("Accept", accept)
		e.Handler().ServeHTTP(w, r)
		return w
	}
	w := get("/metrics", "text/plain")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if w.Code != http.StatusOK || err != nil {
		t.Fatalf("HTTP %d, %v", w.Code, err)
	}
	for name, f := range families {
		switch {
		case name == "secretmanager_rotation_read_success":
			if len(f.GetMetric()) != 2 || f.GetMetric()[0].GetGauge().GetValue() != 0 ||
				f.GetMetric()[1].GetGauge().GetValue() != 0 {
				t.Errorf("%v", f)
			}
		case name == "secretmanager_rotation_build_info":
			if got := f.GetMetric()[0].GetLabel()[1].GetValue(); got != "v1" {
				t.Errorf("version %q", got)
			}
		case strings.HasPrefix(name, "secretmanager_"):
			t.Errorf("unexpected metric %s", name)
		}
	}
	if families["secretmanager_rotation_build_info"] == nil || families["go_goroutines"] == nil {
		t.Error("no metrics of the process")
	}
	for _, want := range []string{"reading the state of the rotator", "configmap=ns/secretmanager-rotation",
		"reading the CronJob", "cronjob=ns/nightly", "connection refused"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log: %s", want, log.String())
		}
	}
	w = get("/metrics", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	if !strings.Contains(w.Header().Get("Content-Type"), "protobuf") {
		t.Errorf("Content-Type is %s, want protobuf", w.Header().Get("Content-Type"))
	}
	if w := get("/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("/healthz: HTTP %d", w.Code)
	}
}

func TestDue(t *testing.T) {
	parse := func(text string) time.Time {
		moment, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	created := parse("2026-01-01T12:00:00Z")
	for name, test := range map[string]struct {
		schedule, zone string
		last           time.Time
		want           string // a time, or an error
	}{
		"no run yet":                {"0 3 * * *", "", time.Time{}, "2026-01-02T03:00:00Z"},
		"after a scheduled run":     {"0 3 * * *", "", parse("2026-01-05T03:00:10Z"), "2026-01-06T03:00:00Z"},
		"after a manual run":        {"0 3 * * *", "", parse("2026-01-05T15:00:00Z"), "2026-01-06T03:00:00Z"},
		"the CronJob was recreated": {"0 3 * * *", "", parse("2025-12-24T03:00:00Z"), "2026-01-02T03:00:00Z"},
		"once a week":               {"30 4 * * 0", "", parse("2026-01-04T04:30:05Z"), "2026-01-11T04:30:00Z"},
		"macro":                     {"@weekly", "", time.Time{}, "2026-01-04T00:00:00Z"},
		"another time zone":         {"0 3 * * *", "America/New_York", time.Time{}, "2026-01-02T08:00:00Z"},
		"unknown time zone": {"0 3 * * *", "Mars/Olympus", time.Time{},
			"time zone of CronJob ns/nightly: unknown time zone Mars/Olympus"},
		"invalid schedule": {"at three", "", time.Time{}, "schedule of CronJob ns/nightly: expected exactly 5 fields"},
	} {
		t.Run(name, func(t *testing.T) {
			job := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "nightly",
				CreationTimestamp: metav1.Time{Time: created}}, Spec: batchv1.CronJobSpec{Schedule: test.schedule}}
			if test.zone != "" {
				job.Spec.TimeZone = &test.zone
			}
			got, err := Due(job, test.last)
			text := got.UTC().Format(time.RFC3339)
			if err != nil {
				text = err.Error()
			}
			if !strings.HasPrefix(text, test.want) {
				t.Errorf("got %s, want %s", text, test.want)
			}
		})
	}
}
