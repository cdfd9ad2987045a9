// Package monitoring tests the alerts, the dashboard and the runbook: Prometheus accepts the alerts, they fire when
// they should, queries select existing metrics, and the runbook names existing objects.
package monitoring

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

const (
	alertsFile    = "charts/secretmanager/monitoring/alerts.yaml"
	dashboardFile = "charts/secretmanager/monitoring/dashboard.json"
	runbookFile   = "docs/runbook.md"
	runbookURL    = "https://github.com/secretmanager-io/secretmanager/blob/main/" + runbookFile + "#"
)

// pathOf returns the path of a file in the repository.
func pathOf(t *testing.T, file string) string {
	t.Helper()
	root, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, filepath.FromSlash(file))
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(pathOf(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// decode decodes YAML or JSON strictly.
func decode[T any](t *testing.T, text string) (out T) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// rules is a file with rules.
type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) (all []rule) {
	t.Helper()
	for _, group := range decode[rules](t, read(t, alertsFile)).Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 10 {
		t.Fatalf("only %d alerts", len(all))
	}
	return all
}

// run builds a program if needed and runs it.
func run(t *testing.T, stdin, name string, args ...string) (output string, err error) {
	t.Helper()
	path, err := programs.Path(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), path, args...)
	var out bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &out, &out
	err = command.Run()
	return out.String(), err
}

// TestAlertsAreValid checks the alerts with promtool.
func TestAlertsAreValid(t *testing.T) {
	out, err := run(t, "", "promtool", "check", "rules", "--lint=all", "--lint-fatal", pathOf(t, alertsFile))
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// testFiles have series, and the alerts that fire.
var testFiles = []string{"test/monitoring/testdata/alerts.yaml", "test/monitoring/testdata/alerts-of-days.yaml"}

// TestAlertsFire runs the tests of promtool.
func TestAlertsFire(t *testing.T) {
	args := []string{"test", "rules"}
	for _, file := range testFiles {
		args = append(args, pathOf(t, file))
	}
	if out, err := run(t, "", "promtool", args...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAlertsAreTested: the test files have a case in which each rule fires, and one in which each alert does not.
func TestAlertsAreTested(t *testing.T) {
	type tests struct {
		Tests []struct {
			Cases []struct {
				Alert string `json:"alertname"`
				Fires []struct {
					Labels      map[string]string `json:"exp_labels"`
					Annotations map[string]string `json:"exp_annotations"`
				} `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	var all tests
	for _, file := range testFiles {
		var tested tests
		if err := yaml.Unmarshal([]byte(read(t, file)), &tested); err != nil {
			t.Fatal(err)
		}
		all.Tests = append(all.Tests, tested.Tests...)
	}
	fires, doesNotFire := map[string]bool{}, map[string]bool{}
	for _, test := range all.Tests {
		for _, c := range test.Cases {
			if len(c.Fires) == 0 {
				doesNotFire[c.Alert] = true
			}
			for _, f := range c.Fires {
				fires[c.Alert+" "+f.Labels["severity"]] = true
			}
		}
	}
	for _, r := range alerts(t) {
		if id := r.Alert + " " + r.Labels["severity"]; !fires[id] {
			t.Errorf("no test in which %s fires", id)
		}
		if !doesNotFire[r.Alert] {
			t.Errorf("no test in which %s does not fire", r.Alert)
		}
	}
}

// TestAlertsLinkToRunbook: each alert has a severity, a summary, a description, and a link to its section of the
// runbook. The runbook has no sections of other alerts.
func TestAlertsLinkToRunbook(t *testing.T) {
	var sections, names []string
	for line := range strings.Lines(read(t, runbookFile)) {
		// Other headings are procedures.
		if heading, ok := strings.CutPrefix(line, "## "); ok && strings.HasPrefix(heading, "SecretManager") {
			sections = append(sections, strings.TrimSpace(heading))
		}
	}
	for _, r := range alerts(t) {
		names = append(names, r.Alert)
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) || len(r.Labels) != 1 {
			t.Errorf("%s has the labels %v", r.Alert, r.Labels)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || len(r.Annotations) != 3 {
			t.Errorf("%s has the annotations %v", r.Alert, r.Annotations)
		}
		// The anchor on GitHub of a heading that has only letters.
		if got, want := r.Annotations["runbook_url"], runbookURL+strings.ToLower(r.Alert); got != want {
			t.Errorf("%s links to %s, want %s", r.Alert, got, want)
		}
	}
	slices.Sort(sections)
	slices.Sort(names)
	if names = slices.Compact(names); !slices.Equal(names, sections) {
		t.Errorf("alerts: %q\nsections of the runbook: %q", names, sections)
	}
}

// TestRunbookNames: the manifests have the names in the commands of the runbook.
func TestRunbookNames(t *testing.T) {
	var manifests strings.Builder
	for _, dir := range []string{"manifests", "manifests/*", "manifests/*/*"} {
		files, err := filepath.Glob(pathOf(t, dir+"/*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			manifests.Write(text)
		}
	}
	names := map[string]bool{}
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(read(t, runbookFile), -1) {
		for _, name := range regexp.MustCompile(`secretmanager-\w+`).FindAllString(block[1], -1) {
			names[name] = true
		}
	}
	if len(names) < 4 {
		t.Errorf("only %d names", len(names))
	}
	for name := range names {
		if !regexp.MustCompile(`[ \[]` + name + `[\],\s}]`).MatchString(manifests.String()) {
			t.Errorf("the runbook names %s, which the manifests do not have", name)
		}
	}
}
