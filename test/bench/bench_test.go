package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/test/flood"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, test := range []struct {
		name   string
		values []time.Duration
		p      float64
		want   time.Duration
	}{
		{"none", nil, 50, 0},
		{"one", []time.Duration{7}, 99, 7},
		{"the lower of two", []time.Duration{1, 2}, 50, 1},
		{"the middle of three", []time.Duration{1, 2, 9}, 50, 2},
		{"the highest of few", []time.Duration{1, 2, 9}, 99, 9},
		{"lowest", hundred, 0, 1},
		{"median", hundred, 50, 50},
		{"95th", hundred, 95, 95},
		{"99th", hundred, 99, 99},
		{"highest", hundred, 100, 100},
	} {
		if got := percentile(test.values, test.p); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestRow(t *testing.T) {
	c := &cell{From: fromKubelet, Entries: 1, Parallel: 1, Kind: kindCold}
	c.add(samples{latencies: []time.Duration{4 * time.Millisecond, 2 * time.Millisecond}, wall: time.Second,
		cpu: 3 * time.Millisecond})
	c.add(samples{latencies: []time.Duration{3 * time.Millisecond}, wall: time.Second, cpu: 3 * time.Millisecond})
	got := c.row()
	want := row{cell: c, Count: 3, Rate: 1.5, P50: 3, P95: 4, P99: 4, CPU: 2}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.Kind = kindFloor
	if got := c.row(); got.CPU != 0 {
		t.Errorf("the floor has %v ms of the provider", got.CPU)
	}
	if got := (&cell{}).row(); got.Rate != 0 || got.CPU != 0 || got.P50 != 0 {
		t.Errorf("empty cell: %+v", got)
	}
}

// TestAuditBudget verifies that the median pair counts.
func TestAuditBudget(t *testing.T) {
	pairs := []auditPair{{2, 1}, {1.06, 1}, {1.04, 1}, {0.5, 1}, {1.02, 1}}
	if b := auditBudget(pairs); !b.Met || b.Ratio != 1.04 {
		t.Errorf("%+v", b)
	}
	pairs[2] = auditPair{1.07, 1}
	if b := auditBudget(pairs); b.Met || b.Ratio != 1.06 {
		t.Errorf("%+v", b)
	}
}

// TestAdmissionBudget verifies that the median pair counts, and that the table has the pairs without the policy.
func TestAdmissionBudget(t *testing.T) {
	pairs := []admissionPair{{8, 4, 4}, {4.8, 4, 4}, {4.4, 4, 5}}
	b := admissionBudget(pairs)
	if b.Met || b.Ratio != 1.2 {
		t.Errorf("%+v", b)
	}
	pairs[1].With = 4.5
	if b = admissionBudget(pairs); !b.Met || b.Ratio != 1.125 {
		t.Errorf("%+v", b)
	}
	var table bytes.Buffer
	if err := (report{Admission: pairs, Budgets: []budget{b}}).table(&table); err != nil ||
		!strings.Contains(table.String(), "1.100    1.250") || !strings.Contains(table.String(), b.Name) {
		t.Errorf("%v:\n%s", err, table.String())
	}
}

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		name   string
		budget budget
		met    bool
		ratio  float64
	}{
		{"below", budget{Limit: 20, Measured: 19}, true, 0},
		{"at the limit", budget{Limit: 20, Measured: 20}, true, 0},
		{"above", budget{Limit: 20, Measured: 20.1}, false, 0},
		{"no requests", budget{Limit: 0, Measured: 0}, true, 0},
		{"some requests", budget{Limit: 0, Measured: 0.05}, false, 0},
		{"fast enough", budget{Limit: 5000, AtLeast: true, Measured: 5000}, true, 0},
		{"too slow", budget{Limit: 5000, AtLeast: true, Measured: 4999}, false, 0},
		{"within the floor's share", budget{Limit: 1.25, Measured: 4, Floor: 3.2}, true, 1.25},
		{"far from the floor", budget{Limit: 1.25, Measured: 6, Floor: 3}, false, 2},
		{"most of the floor's rate", budget{Limit: 0.9, AtLeast: true, Measured: 300, Floor: 300}, true, 1},
		{"half of the floor's rate", budget{Limit: 0.9, AtLeast: true, Measured: 150, Floor: 300}, false, 0.5},
	} {
		got := test.budget.evaluated()
		if got.Met != test.met || got.Ratio != test.ratio {
			t.Errorf("%s: met %v, ratio %v; want %v, %v", test.name, got.Met, got.Ratio, test.met, test.ratio)
		}
		if strings.Contains(got.line(), "MISSED") == test.met {
			t.Errorf("%s: printed as %q", test.name, got.line())
		}
	}
}

// TestReport verifies that each budget has a measurement, and that both formats have all budgets.
func TestReport(t *testing.T) {
	r := report{
		Memory: resident{Start: 10 * mib, Pods110: 40 * mib, Pods1k: 50 * mib},
		Sizes:  sizes{Provider: 23e6, Rotator: 28e6, Image: 51e6},
		Requests: []requests{{fromKubelet, kindCold, 2, 0}, {fromKubelet, kindRepeat, 0, 0}, {fromPod, kindCold, 2, 1},
			{fromPod, kindRepeat, 0, 1}},
	}
	for _, c := range allCells() {
		latency := map[string]time.Duration{kindFloor: 3, kindCold: 6, kindRepeat: 1}[c.Kind] * time.Millisecond
		c.add(samples{latencies: []time.Duration{latency}, wall: latency, cpu: time.Millisecond})
		r.Rows = append(r.Rows, c.row())
	}
	r.Budgets = budgets(r)
	met := map[string]bool{}
	for _, b := range r.Budgets {
		name, _, _ := strings.Cut(b.Name, ":")
		met[name] = b.Met
	}
	want := map[string]bool{
		"cold mount p50": false, "16 cold mounts at a time": false, "repeated mount p50": false,
		"repeated mounts, 16 at a time": false,
		"requests of a repeated mount":  true, "CPU of a cold mount": true, "CPU of a repeated mount": false,
		"memory at start": true, "memory after 110 pods": false, "provider binary": true, "image": true,
	}
	if diff := cmp.Diff(want, met); diff != "" {
		t.Errorf("budgets met (-want +got):\n%s", diff)
	}

	var table, text bytes.Buffer
	if err := r.table(&table); err != nil {
		t.Fatal(err)
	}
	for _, b := range r.Budgets {
		if !strings.Contains(table.String(), b.Name) {
			t.Errorf("the table has no %q:\n%s", b.Name, table.String())
		}
	}
	if err := r.json(&text); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(text.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	first := back["mounts"].([]any)[1].(map[string]any)
	if first["kind"] != kindCold || first["p50ms"] != 6.0 || first["from"] != fromKubelet {
		t.Errorf("in JSON: %v", first)
	}
}

// TestFloodBudgets verifies that each port is compared with the bare listener, over all rounds.
func TestFloodBudgets(t *testing.T) {
	runs := []floodRun{{Port: bareListener}, {Port: "fast"}, {Port: "slow"}}
	for i, p99 := range []time.Duration{4, 8, 9} {
		for n := range 1000 {
			latency := time.Millisecond
			if n >= 980 {
				latency = p99 * time.Millisecond
			}
			runs[i].latencies = append(runs[i].latencies, latency)
		}
		runs[i].result = flood.Result{Made: 200, OK: 150, Took: 2 * time.Second}
		runs[i].summarize()
	}
	if f := runs[2]; f.Mounts != 1000 || f.P50 != 1 || f.P99 != 9 || f.PerSecond != 100 || f.OK != 0.75 {
		t.Errorf("%+v", f)
	}
	met := map[string]bool{}
	for _, b := range floodBudgets(runs) {
		met[b.Name] = b.Met
	}
	want := map[string]bool{"repeated mount p99: flood of fast": true, "repeated mount p99: flood of slow": false}
	if diff := cmp.Diff(want, met); diff != "" {
		t.Errorf("budgets met (-want +got):\n%s", diff)
	}
	var table bytes.Buffer
	if err := (report{Floods: runs}).table(&table); err != nil || !strings.Contains(table.String(), bareListener) {
		t.Errorf("%v:\n%s", err, table.String())
	}
}

func TestProc(t *testing.T) {
	const stat = "42 (a name (of) 3 words) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1 0 12345"
	if got, err := parseStat(stat); err != nil || got != 1750*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseStat("42 (x) S 1"); err == nil {
		t.Error("an incomplete line is accepted")
	}
	if got, err := parseKB("VmHWM:\t  99 kB\nVmRSS:\t   20480 kB\n", "VmRSS:"); err != nil || got != 20*mib {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseKB("", "VmRSS:"); err == nil {
		t.Error("an empty text is accepted")
	}
}

// TestWrongResponses verifies that wrong responses are errors.
func TestWrongResponses(t *testing.T) {
	v := &volume{secret: "s", entries: []string{"a", "b"}, plaintext: map[string]string{"a": "1", "b": "2"}}
	response := func(files ...string) *v1alpha1.MountResponse {
		r := &v1alpha1.MountResponse{ObjectVersion: make([]*v1alpha1.ObjectVersion, 2)}
		for i := 0; i < len(files); i += 2 {
			r.Files = append(r.Files, &v1alpha1.File{Path: files[i], Contents: []byte(files[i+1])})
		}
		return r
	}
	if err := v.checkResponse(response("a", "1", "b", "2")); err != nil {
		t.Error(err)
	}
	for name, wrong := range map[string]*v1alpha1.MountResponse{
		"empty": {}, "a file is missing": response("a", "1"), "swapped": response("a", "2", "b", "1"),
		"one more": response("a", "1", "b", "2", "c", "3"), "another name": response("a", "1", "c", "2"),
		"no versions": {Files: response("a", "1", "b", "2").Files},
	} {
		if v.checkResponse(wrong) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
