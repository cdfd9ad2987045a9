package doctor

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	classes "github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

func newRun(o Options) *run {
	o.Timeout = time.Minute
	return &run{Options: o, broken: map[string]string{}}
}

// What rests on a broken check names that one, however far it is off.
func TestOneFaultIsReportedOnce(t *testing.T) {
	var told []string
	w := newRun(Options{Found: func(l Check) { told = append(told, l.Name) }})
	say := func(f finding) func(context.Context) finding {
		return func(context.Context) finding { return f }
	}
	never := func(context.Context) finding {
		t.Error("a check was looked at that rests on a broken one")
		return finding{}
	}
	w.check(t.Context(), "", "a", nil, say(brokenf("no")))
	w.check(t.Context(), "class x", "b", []string{"a"}, never)
	w.check(t.Context(), "class x", "c", []string{"b"}, never)
	w.check(t.Context(), "class y", "c", []string{"b"}, say(okf("another class")))
	w.check(t.Context(), "", "d", nil, say(unknownf("no right")))
	w.check(t.Context(), "", "e", []string{"d"}, say(okf("all the same")))
	want := []Check{
		{Name: "a", State: Broken, Detail: "no"},
		{Name: "b", Subject: "class x", State: Unknown, Detail: "depends on a", DependsOn: "a"},
		{Name: "c", Subject: "class x", State: Unknown, Detail: "depends on a", DependsOn: "a"},
		{Name: "c", Subject: "class y", State: OK, Detail: "another class"},
		{Name: "d", State: Unknown, Detail: "no right"},
		{Name: "e", State: OK, Detail: "all the same"},
	}
	if diff := cmp.Diff(want, w.checks); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	if !slices.Equal(told, []string{"a", "b", "c", "c", "d", "e"}) {
		t.Errorf("told of %q", told)
	}
}

func TestSomebodyWhoWaitsIsToldWhatFor(t *testing.T) {
	waiting := make(chan string, 1)
	w := newRun(Options{Slow: func(check string) { waiting <- check }})
	w.check(t.Context(), "", "vault", nil, func(ctx context.Context) finding {
		select {
		case check := <-waiting:
			return okf("%s", check)
		case <-ctx.Done():
			return brokenf("nobody said anything")
		}
	})
	if w.checks[0].Detail != "vault" {
		t.Errorf("%+v", w.checks[0])
	}
}

// Words of a server may be written by anybody.
func TestTerminalIsSafe(t *testing.T) {
	w := newRun(Options{})
	w.check(t.Context(), "", "mount", nil, func(context.Context) finding {
		return brokenf("a\x1b[2Jb").withFix("kubectl \x07").withWarning("\u202ex").withAdvice("\u009b")
	})
	if l := w.checks[0]; strings.ContainsAny(l.Detail+l.Fixes[0]+l.Warnings[0]+l.Advice, "\x1b\x07\u202e\u009b") ||
		!strings.Contains(l.Detail, "b") {
		t.Errorf("%+q", l)
	}
}

func TestFlagValue(t *testing.T) {
	for line, want := range map[string]string{
		"--x --audience=a":           "a",
		"-audience=a":                "a",
		"--audience a --x":           "a",
		"--audience=a --audience=b":  "b",
		"--audience=":                "",
		"--audience --x":             "",
		"--audience-of=a":            "(none)",
		"audience=a":                 "(none)",
		"--audience=vault=1,vault=2": "vault=1,vault=2",
	} {
		got, found := flagValue(strings.Fields(line), "audience")
		if !found {
			got = "(none)"
		}
		if got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, c := range []struct {
		ours, image   string
		state         State
		detail, warns string
	}{
		{"v0.2.0", "reg.example:5000/secretmanager:v0.2.7@sha256:abc", OK, "provider v0.2.7, this program v0.2.0", ""},
		{"v0.2.0", "secretmanager:v0.1.0", OK, "provider v0.1.0", "differ"},
		{"v1.2.0", "secretmanager:v0.2.0", OK, "provider v0.2.0", "differ"},
		{"v0.2.0", "reg.example:5000/secretmanager", Unknown, "does not tell", ""},
		{"v0.2.0", "secretmanager:latest", Unknown, "does not tell", ""},
		{"devel", "secretmanager:v0.1.0", OK, "development build", ""},
		{"v0.2.0", "a:v0.2.0 a:v0.1.0", OK, "a:v0.2.0, a:v0.1.0", "different versions"},
		{"v0.2.0", "", Unknown, "cannot be seen", ""},
	} {
		w := newRun(Options{Version: c.ours})
		w.provider.images = strings.Fields(c.image)
		f := w.checkVersion(t.Context())
		if f.state != c.state || !strings.Contains(f.detail, c.detail) || (c.warns == "") != (len(f.warnings) == 0) ||
			!strings.Contains(strings.Join(f.warnings, ""), c.warns) {
			t.Errorf("%s and %s: %+v", c.ours, c.image, f)
		}
	}
}

func TestBinding(t *testing.T) {
	type m = map[string]any
	list := func(words ...any) []any { return words }
	for name, c := range map[string]struct {
		role  m
		state State
		says  string
	}{
		"bound": {m{"bound_service_account_names": list("web"),
			"bound_service_account_namespaces": list("demo")}, OK, ""},
		"one of several": {m{"bound_service_account_names": list("a", "web"),
			"bound_service_account_namespaces": list("x", "demo")}, OK, ""},
		"pattern": {m{"bound_service_account_names": list("we*"),
			"bound_service_account_namespaces": list("demo")}, OK, ""},
		"everybody": {m{"bound_service_account_names": list("*"), "bound_service_account_namespaces": list("*")},
			OK, "it takes others too"},
		"other name": {m{"bound_service_account_names": list("webs"),
			"bound_service_account_namespaces": list("demo")}, Broken, `names are ["webs"]`},
		"other namespace": {m{"bound_service_account_names": list("web"),
			"bound_service_account_namespaces": list("prod")}, Broken, `namespaces are ["prod"]`},
		"selector": {m{"bound_service_account_names": list("web"), "bound_service_account_namespaces": list("prod"),
			"bound_service_account_namespace_selector": "{}"}, Unknown, "selector"},
		"subject": {m{"role_type": "jwt", "bound_subject": "system:serviceaccount:demo:web"}, OK, ""},
		"other subject": {m{"role_type": "jwt", "bound_subject": "system:serviceaccount:demo:x"}, Broken,
			"bound_subject is system:serviceaccount:demo:x"},
		"claims": {m{"role_type": "jwt", "bound_subject": "", "bound_claims": m{"a": "b"}}, Unknown, "claims"},
	} {
		t.Run(name, func(t *testing.T) {
			c0 := &class{run: newRun(Options{Namespace: "demo"}), account: "web", role: c.role,
				Class: classes.Class{Role: "r", AuthMount: "kubernetes"}}
			f := c0.judgeBinding()
			if all := f.detail + strings.Join(f.warnings, ""); f.state != c.state || !strings.Contains(all, c.says) ||
				c.says == "" && len(f.warnings) > 0 {
				t.Errorf("%+v", f)
			}
		})
	}
}

// Vault's words for a refused login, as its plugins have them.
func TestCulprit(t *testing.T) {
	for words, want := range map[string]string{
		`invalid role name "web"`:                                                           "role",
		`role "web" could not be found`:                                                     "role",
		"service account name not authorized":                                               "role",
		"namespace not authorized":                                                          "role",
		`error validating token: sub claim does not match bound subject`:                    "role",
		`invalid audience (aud) claim: audience claim does not match any expected audience`: "audience",
		"permission denied":                                                                 "login",
		"could not load backend configuration":                                              "login",
	} {
		if got := causeOf(errors.New(words)); got != want {
			t.Errorf("%q is about %s", words, got)
		}
	}
}

// TestExplain: the reasons of the provider, and the messages of the kubelet and the driver.
func TestExplain(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0"}, Spec: corev1.PodSpec{NodeName: "node-1"}}
	messages := []string{"provider not found", "code = DeadlineExceeded desc = x", "code = Unavailable desc = x"}
	for _, reason := range []*failure.Reason{
		failure.TokenMissing, failure.TokenExpired, failure.VaultUnreachable, failure.VaultSealed, failure.VaultRateLimited,
	} {
		messages = append(messages, "rpc error: code = Internal desc = "+reason.New("x", "y", "z").Error())
	}
	for _, message := range messages {
		why, fix := explain("MountVolume.SetUp failed: "+message, "demo", pod)
		if why == "" || len(fix) == 0 {
			t.Errorf("%q is not explained", message)
		}
	}
	for words, want := range map[string]string{
		"kubernetes.io/csi: driver name secrets-store.csi.k8s.io not found in the list of registered CSI drivers": "does not run on the pod's node",
		`fetching NodePublishSecretRef demo/x failed: kubernetes.io/csi: failed to find the secret x`:             "nodePublishSecretRef",
	} {
		if why, _ := explain(words, "demo", pod); !strings.Contains(why, want) {
			t.Errorf("%q: %q", words, why)
		}
	}
	why, fix := explain("something else", "demo", pod)
	if why != "" || !slices.Equal(fix, []string{"kubectl -n demo describe pod web-0"}) {
		t.Errorf("%q, %q", why, fix)
	}
}

func TestCommandsAreForAShell(t *testing.T) {
	got := command("kubectl", "-p", `{"a":"it's"}`, "", "a;b", "x=$(y)", "plain/word:1.2,3@x=y")
	want := `kubectl -p '{"a":"it'\''s"}' '' 'a;b' 'x=$(y)' plain/word:1.2,3@x=y`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The page has every field. That it has every check is tested where there are some.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := reflect.TypeFor[Check]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(string(text), "\n| `"+name+"` |") {
			t.Errorf("docs/reference/doctor.md does not have %s", name)
		}
	}
}
