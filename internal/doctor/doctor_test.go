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

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/workload"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

func newTestRun(o Options) *run {
	o.Timeout = time.Minute
	return newRun(o)
}

// A check that depends on a broken one, directly or not, names that one and does not run.
func TestBrokenCheckBlocksDependents(t *testing.T) {
	var reported []string
	w := newTestRun(Options{Found: func(c Check) { reported = append(reported, c.Name) }})
	returns := func(f result.Finding) func(context.Context) result.Finding {
		return func(context.Context) result.Finding { return f }
	}
	unreachable := func(context.Context) result.Finding {
		t.Error("a check ran that depends on a broken one")
		return result.Finding{}
	}
	w.check(t.Context(), "", "a", nil, returns(result.Brokenf("no")))
	w.check(t.Context(), "class x", "b", []string{"a"}, unreachable)
	w.check(t.Context(), "class x", "c", []string{"b"}, unreachable)
	w.check(t.Context(), "class y", "c", []string{"b"}, returns(result.OKf("another class")))
	w.check(t.Context(), "", "d", nil, returns(result.Unknownf("no right")))
	w.check(t.Context(), "", "e", []string{"d"}, returns(result.OKf("all the same")))
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
	if !slices.Equal(reported, []string{"a", "b", "c", "c", "d", "e"}) {
		t.Errorf("reported %q", reported)
	}
}

func TestSlowCheckIsReported(t *testing.T) {
	waiting := make(chan string, 1)
	w := newTestRun(Options{Slow: func(check string) { waiting <- check }})
	w.check(t.Context(), "", "vault", nil, func(ctx context.Context) result.Finding {
		select {
		case check := <-waiting:
			return result.OKf("%s", check)
		case <-ctx.Done():
			return result.Brokenf("Slow was not called")
		}
	})
	if w.checks[0].Detail != "vault" {
		t.Errorf("%+v", w.checks[0])
	}
}

// Messages of servers may have control characters.
func TestTerminalIsSafe(t *testing.T) {
	w := newTestRun(Options{})
	w.check(t.Context(), "", "mount", nil, func(context.Context) result.Finding {
		return result.Brokenf("a\x1b[2Jb").WithFix("kubectl \x07").WithWarning("\u202ex").WithAdvice("\u009b").
			WithInspect("\x1b").WithChoice("\x1b", "\x1b")
	})
	if c := w.checks[0]; strings.ContainsAny(c.Detail+c.Fixes[0]+c.Warnings[0]+c.Advice+c.Inspect[0]+
		c.Alternatives[0].When+c.Alternatives[0].Fixes[0], "\x1b\x07\u202e\u009b") ||
		!strings.Contains(c.Detail, "b") {
		t.Errorf("%+q", c)
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
		got, found := workload.FlagValue(strings.Fields(line), "audience")
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
		{"v0.2.0", "reg.example:5000/secretmanager", Unknown, "does not have its version", ""},
		{"v0.2.0", "secretmanager:latest", Unknown, "does not have its version", ""},
		{"devel", "secretmanager:v0.1.0", OK, "development build", ""},
		{"v0.2.0", "a:v0.2.0 a:v0.1.0", OK, "a:v0.2.0, a:v0.1.0", "different versions"},
		{"v0.2.0", "", Unknown, "could not be read", ""},
	} {
		w := newTestRun(Options{Version: c.ours})
		w.provider.images = strings.Fields(c.image)
		f := w.checkVersion(t.Context())
		if f.State != c.state || !strings.Contains(f.Detail, c.detail) || (c.warns == "") != (len(f.Warnings) == 0) ||
			!strings.Contains(strings.Join(f.Warnings, ""), c.warns) {
			t.Errorf("%s and %s: %+v", c.ours, c.image, f)
		}
	}
}

func TestBinding(t *testing.T) {
	type m = map[string]any
	list := func(words ...any) []any { return words }
	for name, test := range map[string]struct {
		role  m
		state State
		want  string
	}{
		"bound": {m{"bound_service_account_names": list("web"),
			"bound_service_account_namespaces": list("demo")}, OK, ""},
		"one of several": {m{"bound_service_account_names": list("a", "web"),
			"bound_service_account_namespaces": list("x", "demo")}, OK, ""},
		"pattern": {m{"bound_service_account_names": list("we*"),
			"bound_service_account_namespaces": list("demo")}, OK, ""},
		"everybody": {m{"bound_service_account_names": list("*"), "bound_service_account_namespaces": list("*")},
			OK, "it also accepts others"},
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
			c := &classCheck{run: newTestRun(Options{Namespace: "demo"}), account: "web", role: test.role,
				Class: class.Class{Role: "r", AuthMount: "kubernetes"}}
			f := c.checkBinding()
			if all := f.Detail + strings.Join(f.Warnings, ""); f.State != test.state || !strings.Contains(all, test.want) ||
				test.want == "" && len(f.Warnings) > 0 {
				t.Errorf("%+v", f)
			}
		})
	}
}

// The messages are those of Vault's auth plugins.
func TestDeniedCheck(t *testing.T) {
	for message, want := range map[string]string{
		`invalid role name "web"`:                                                           "role",
		`role "web" could not be found`:                                                     "role",
		"service account name not authorized":                                               "role",
		"namespace not authorized":                                                          "role",
		`error validating token: sub claim does not match bound subject`:                    "role",
		`invalid audience (aud) claim: audience claim does not match any expected audience`: "audience",
		"permission denied":                                                                 "login",
		"could not load backend configuration":                                              "login",
	} {
		if got := deniedCheck(errors.New(message)); got != want {
			t.Errorf("%q: got %s, want %s", message, got, want)
		}
	}
}

// TestExplain covers the reasons of the provider, and the messages of the kubelet and the driver.
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
	for message, want := range map[string]string{
		"kubernetes.io/csi: driver name secrets-store.csi.k8s.io not found in the list of registered " +
			"CSI drivers": "does not run on the pod's node",
		"fetching NodePublishSecretRef demo/x failed: kubernetes.io/csi: failed to find the secret x": "nodePublishSecretRef",
	} {
		if why, _ := explain(message, "demo", pod); !strings.Contains(why, want) {
			t.Errorf("%q: %q", message, why)
		}
	}
	why, fix := explain("something else", "demo", pod)
	if why != "" || !slices.Equal(fix, []string{"kubectl -n demo describe pod web-0"}) {
		t.Errorf("%q, %q", why, fix)
	}
}

func TestCommandIsQuoted(t *testing.T) {
	got := result.Command("kubectl", "-p", `{"a":"it's"}`, "", "a;b", "x=$(y)", "plain/word:1.2,3@x=y")
	want := `kubectl -p '{"a":"it'\''s"}' '' 'a;b' 'x=$(y)' plain/word:1.2,3@x=y`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestDoctor in cmd/secretmanager covers the checks of the page.
func TestPageHasFields(t *testing.T) {
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

// A file that is mounted by subPath stays as it was when the container started.
func TestSubPathMounts(t *testing.T) {
	csi := func(driver string) corev1.VolumeSource {
		return corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver}}
	}
	pod := corev1.PodSpec{
		Volumes: []corev1.Volume{
			{Name: "secrets", VolumeSource: csi(driverName)}, {Name: "data", VolumeSource: csi("other")},
		},
		InitContainers: []corev1.Container{
			{Name: "init", VolumeMounts: []corev1.VolumeMount{{Name: "secrets", SubPathExpr: "$(FILE)"}}},
		},
		Containers: []corev1.Container{
			{Name: "app", VolumeMounts: []corev1.VolumeMount{
				{Name: "secrets", SubPath: "password"}, {Name: "data", SubPath: "x"},
			}},
			{Name: "whole", VolumeMounts: []corev1.VolumeMount{{Name: "secrets"}}},
		},
	}
	got := subPathMounts(pod)
	if len(got) != 2 || !strings.HasPrefix(got[0], "container init mounts $(FILE) of volume secrets") ||
		!strings.HasPrefix(got[1], "container app mounts password of volume secrets") {
		t.Errorf("warnings: %q", got)
	}
}
