package doctor

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/internal/doctor"
)

// checks are results of each kind.
var checks = []doctor.Check{
	{Name: "cluster", State: doctor.OK, Detail: "Kubernetes v1"},
	{Name: "rotation", State: doctor.OK, Detail: "off", Warnings: []string{
		"running pods do not see new values: set the driver's --enable-secret-rotation=true and " +
			"--rotation-poll-interval=0s"}},
	{Name: "rotator", State: doctor.Unknown, Detail: "you may not list cronjobs.batch", Advice: "ask someone with " +
		"that right"},
	{Subject: "class demo/web", Name: "class", State: doctor.OK, Detail: "role web"},
	{Subject: "class demo/web", Name: "role", State: doctor.Broken, Fixes: []string{"kubectl -n demo patch web -p " +
		"'{\"a\": 1}'"},
		Detail: "auth/kubernetes/role/demo-matrx does not exist; role demo-matrix fits: it accepts service account matrix"},
	{Subject: "class demo/web", Name: "audience", State: doctor.Unknown, DependsOn: "role", Detail: "depends on role"},
	{Subject: "class demo/web", Name: "login", State: doctor.Unknown, DependsOn: "role", Detail: "depends on role"},
	{Subject: "class demo/web", Name: "source", State: doctor.Broken, Detail: "two Secrets",
		Inspect: []string{"kubectl get a"},
		Alternatives: []doctor.Alternative{{When: "a is meant", Fixes: []string{"kubectl a"}}, {When: "b is",
			Fixes: []string{"kubectl b"}}}},
	{Subject: "class demo/other", Name: "role", State: doctor.Broken, Detail: "the same", Fixes: []string{
		"kubectl -n demo patch web -p '{\"a\": 1}'"}},
}

func printed(p printer) string {
	var out bytes.Buffer
	p.out = &out
	for _, c := range checks {
		p.add(c)
	}
	p.finish()
	return out.String()
}

func TestPrinter(t *testing.T) {
	want := `installation: 2 of 3 checks ok
  warning  rotation  running pods do not see new values: set the driver's
                     --enable-secret-rotation=true and
                     --rotation-poll-interval=0s
  unknown  rotator   you may not list cronjobs.batch
                     note: ask someone with that right
class demo/web: 1 of 5 checks ok
  broken   role    auth/kubernetes/role/demo-matrx does not exist; role
                   demo-matrix fits: it accepts service account matrix
  skipped  role    not checked because of it: audience, login
  broken   source  two Secrets
                   see: kubectl get a
class demo/other: 0 of 1 checks ok
  broken   role  the same

Fix first:
  role of class demo/web
    kubectl -n demo patch web -p '{"a": 1}'
  source of class demo/web: choose one
    if a is meant:
      kubectl a
    if b is:
      kubectl b
`
	if diff := cmp.Diff(want, printed(printer{width: 80})); diff != "" {
		t.Errorf("80 columns (-want +got):\n%s", diff)
	}
	wide := printed(printer{width: 120})
	if !strings.Contains(wide, "\n  warning  rotation  running pods do not see new values: set the driver's "+
		"--enable-secret-rotation=true and\n                     --rotation-poll-interval=0s\n") {
		t.Errorf("120 columns:\n%s", wide)
	}
	for width, text := range map[int]string{80: printed(printer{width: 80}), 120: wide} {
		for line := range strings.Lines(text) {
			if len(strings.TrimSuffix(line, "\n")) > width {
				t.Errorf("%d columns: %q", width, line)
			}
		}
	}
	if all := printed(printer{}); !strings.Contains(all, "=true and --rotation-poll") {
		t.Errorf("without a terminal lines are wrapped:\n%s", all)
	}
}

func TestPrinterVerbose(t *testing.T) {
	got := printed(printer{width: 80, verbose: true})
	for _, line := range []string{
		"  ok       cluster   Kubernetes v1\n", "  ok       rotation  off\n                     warning: running pods",
		"  unknown  audience  depends on role\n", "  ok       class     role web\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not in:\n%s", line, got)
		}
	}
}

func TestPrinterColors(t *testing.T) {
	got := printed(printer{width: 80, color: true})
	if !strings.Contains(got, "  \x1b[31mbroken \x1b[0m  role    auth") ||
		!strings.Contains(got, "  \x1b[33mwarning\x1b[0m  rotation") {
		t.Errorf("%q", got)
	}
	if plain := printed(printer{width: 80}); strings.Contains(plain, "\x1b") {
		t.Errorf("%q", plain)
	}
}

// One alternative is a question, and not a choice.
func TestPrinterOneAlternative(t *testing.T) {
	var out bytes.Buffer
	p := printer{out: &out}
	p.add(doctor.Check{Name: "role", State: doctor.Broken, Detail: "x", Alternatives: []doctor.Alternative{
		{When: "everyone needs it", Fixes: []string{"kubectl a"}}}})
	p.finish()
	if want := "\nFix first:\n  role of the installation: decide whether this is right\n    if everyone needs it:\n" +
		"      kubectl a\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("%s", out.String())
	}
}
