package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
)

// TestDoctor breaks each check of a good installation in turn.
func TestDoctor(t *testing.T) {
	c := newDoctorEnv(t)
	if v := c.doctor(t, nil); v.code != cli.ExitToDo ||
		!slices.Equal(v.in(doctor.Broken), []string{"crds", "driver", "csidriver", "provider", "auth-mount"}) {
		t.Errorf("nothing installed: exit code %d\n%s", v.code, v)
	}
	c.install(t)
	requireOK := func(t *testing.T, args ...string) {
		t.Helper()
		if v := c.doctor(t, nil, args...); v.code != cli.ExitDone || len(v.in(doctor.OK)) != len(v.checks) ||
			len(v.checks) < 13 {
			t.Fatalf("doctor %s: exit code %d\n%s", strings.Join(args, " "), v.code, v)
		}
	}
	requireOK(t)
	requireOK(t, "web-0")
	c.testPage(t)
	requireOK(t, "--class", "web", "--service-account", "web")
	for _, b := range faults {
		t.Run(b.name, func(t *testing.T) {
			if b.args == nil {
				b.args = []string{"web-0"}
			}
			b.inject(t, c)
			v := c.doctor(t, nil, b.args...)
			if v.code != cli.ExitToDo || !slices.Equal(v.in(doctor.Broken), []string{b.check}) {
				t.Errorf("exit code %d, broken %q\n%s", v.code, v.in(doctor.Broken), v)
			}
			for _, l := range v.checks {
				if l.State == doctor.Unknown && (l.DependsOn != b.check || l.Detail != "depends on "+b.check) &&
					!slices.Contains(b.args, "--login=false") {
					t.Errorf("%s: %+v", l.Name, l)
				}
			}
			for _, name := range b.blocks {
				if got := v.check(t, name); got.State != doctor.Unknown {
					t.Errorf("%s is %s", name, got.State)
				}
			}
			broken := v.check(t, b.check)
			if fixes := strings.Join(broken.Fixes, "\n"); !strings.Contains(broken.Detail, b.detail) ||
				!strings.Contains(fixes, b.fix) {
				t.Errorf("detail: %s\nfixes: %s", broken.Detail, fixes)
			}
			// No command grants what only the class requests.
			for _, grant := range []string{"vault-setup", "auth/kubernetes/role", "vault policy", "create role",
				"transit/keys", "sts.example"} {
				if fixes := strings.Join(broken.Fixes, "\n"); strings.Contains(fixes, grant) {
					t.Errorf("a printed command grants what only the class asks for: %s", fixes)
				}
			}
			if len(broken.Fixes) == 0 && broken.Advice == "" {
				t.Error("neither fix nor advice")
			}
			if b.fixed {
				for _, fix := range broken.Fixes {
					c.sh(t, fix)
				}
				after := c.doctor(t, nil, b.args...)
				if after.check(t, b.check).State != doctor.OK || !b.alone && after.code != cli.ExitDone {
					t.Errorf("after %q: exit code %d\n%s", broken.Fixes, after.code, after)
				}
			}
			if b.undo != nil {
				b.undo(t, c)
			}
			requireOK(t, "web-0")
		})
	}
	t.Run("tokens of other providers", func(t *testing.T) { c.testOtherTokens(t) })
	t.Run("pods that are refused", func(t *testing.T) { c.testRefusedPods(t) })
	t.Run("jwt mount", func(t *testing.T) { c.testJWT(t) })
	t.Run("policy that is too wide", func(t *testing.T) { c.testBroadPolicy(t) })
	t.Run("few rights", func(t *testing.T) { c.testFewRights(t) })
	t.Run("plain HTTP", func(t *testing.T) { c.testPlainHTTP(t) })
	t.Run("Vault that does not respond", func(t *testing.T) { c.testUnresponsiveVault(t) })
	t.Run("another provider", func(t *testing.T) { c.testProviderElsewhere(t) })
	t.Run("clock", func(t *testing.T) { c.testClock(t) })
	t.Run("texts", func(t *testing.T) { c.testTextOutput(t) })
}

// testPage compares the checks in docs/reference/doctor.md with those that run.
func (c *doctorEnv) testPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/doctor.md")
	check(t, err)
	_, page, _ := strings.Cut(string(text), "## The checks")
	page, _, _ = strings.Cut(page, "## JSON")
	var rows, names []string
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			rows = append(rows, name)
		}
	}
	for _, l := range c.doctor(t, nil, "web-0").checks {
		names = append(names, l.Name)
	}
	slices.Sort(rows)
	slices.Sort(names)
	if diff := cmp.Diff(names, rows); diff != "" {
		t.Errorf("checks (-run +on the page):\n%s", diff)
	}
}
