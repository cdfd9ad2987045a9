package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
	"github.com/secretmanager-io/secretmanager/test/programs"
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
			fixes := slices.Clone(broken.Fixes)
			for _, choice := range broken.Alternatives {
				fixes = append(fixes, choice.Fixes...)
			}
			printed := strings.Join(append(slices.Clone(fixes), broken.Inspect...), "\n")
			if !strings.Contains(broken.Detail, b.detail) || !strings.Contains(printed, b.fix) {
				t.Errorf("detail: %s\ncommands: %s", broken.Detail, printed)
			}
			// No command grants what only the class requests. The keys of the rotator are those in its CronJob.
			for _, grant := range []string{"vault-setup", "auth/kubernetes/role", "vault policy", "create role",
				"transit/keys", "sts.example"} {
				if strings.Contains(strings.Join(fixes, "\n"), grant) && b.check != "rotator-role" {
					t.Errorf("a printed command grants what only the class asks for: %s", fixes)
				}
			}
			if printed == "" && broken.Advice == "" {
				t.Error("neither a command nor advice")
			}
			commands := broken.Fixes
			if b.choice > 0 {
				commands = broken.Alternatives[b.choice-1].Fixes
			}
			if b.fixed || b.choice > 0 {
				before := c.snapshot(t)
				if len(commands) == 0 {
					t.Errorf("no fix: %+v", broken)
				}
				for _, fix := range commands {
					c.run(t, b.stdin, "sh", "-ec", fix)
				}
				if diff := cmp.Diff(b.changes, before.changes(c.snapshot(t))); diff != "" {
					t.Errorf("changes of %q (-want +got):\n%s", commands, diff)
				}
				after := c.doctor(t, nil, b.args...)
				if after.check(t, b.check).State != doctor.OK || !b.alone && after.code != cli.ExitDone {
					t.Errorf("after %q: exit code %d\n%s", commands, after.code, after)
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
	for _, l := range append(c.doctor(t, nil, "web-0").checks, c.doctor(t, nil).checks...) {
		names = append(names, l.Name)
	}
	slices.Sort(rows)
	slices.Sort(names)
	names = slices.Compact(names)
	if diff := cmp.Diff(names, rows); diff != "" {
		t.Errorf("checks (-run +on the page):\n%s", diff)
	}
}

// testTextOutput checks the output without -o.
func (c *doctorEnv) testTextOutput(t *testing.T) {
	c.sh(t, `kubectl -n demo label secret web secretmanager.io/transit-key-`)
	defer restoreSecret(t, c)
	kubernetes, err := programs.Kubernetes.Selected()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := c.command(t.Context(), "", c.env, "secretmanager", "doctor", "web-0", "-n", "demo", "-v").CombinedOutput()
	for _, want := range []string{
		"\n  ok       cluster           Kubernetes " + kubernetes.Tag + " at https://",
		"\npod demo/web-0: 1 check ok\n  ok       pod  Running on node node-1\n",
		"\npod demo/web-0: 1 check ok\n  ok       mount  mounted before its containers started\n",
		"\nclass demo/web: 11 of 12 checks ok\n  ok       class            role demo-web, key transit/keys/web, Secret " +
			"web, scope strict\n",
		"\n  broken   label            label secretmanager.io/transit-key is missing",
		"\n\nFix first:\n  label of class demo/web\n    kubectl -n demo label secret web secretmanager.io/transit-key=web\n",
		"\nerror: 1 check is broken: label\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "\x1b") {
		t.Error("colors without a terminal")
	}
}
