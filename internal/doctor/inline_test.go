package doctor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestInlineAuthFlags checks lists of auth mounts with which the provider does not start, and their fixes, which keep
// the other mounts of the list. TestDoctor has a Vault that does not support inline authentication.
func TestInlineAuthFlags(t *testing.T) {
	const remove = `kubectl -n ns patch daemonset provider --type=json -p ` +
		`'[{"op":"test","path":"/spec/template/spec/containers/0/args/1","value":"--vault-inline-auth=jwt,MOUNT"},` +
		`{"op":"replace","path":"/spec/template/spec/containers/0/args/1","value":"--vault-inline-auth=jwt"}]'`
	for name, test := range map[string]struct {
		mount, detail string
		fix           []string
		choices       []string
	}{
		"a pattern": {"team-*", "wildcards are not supported", []string{strings.ReplaceAll(remove, "MOUNT", "team-*")}, nil},
		"a mount that no class may name": {"other", "no class may name", nil, []string{
			`kubectl -n ns patch daemonset provider --type=json -p ` +
				`'[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--vault-allowed-auth-mounts=other"}]'`,
			strings.ReplaceAll(remove, "MOUNT", "other"),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestRun(Options{})
			w.provider.inline, w.provider.settings.AuthMount = []string{"jwt", test.mount}, "jwt"
			w.provider.set = &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "provider"}}
			w.provider.set.Spec.Template.Spec.Containers = []corev1.Container{{Name: "provider",
				Args: []string{"--x", "--vault-inline-auth=jwt," + test.mount}}}
			f := w.checkInlineAuth(t.Context())
			if f.State != Broken || !strings.Contains(f.Detail, test.detail) {
				t.Errorf("%+v", f)
			}
			var choices []string
			for _, c := range f.Choices {
				choices = append(choices, c.Fixes...)
			}
			if diff := cmp.Diff(test.fix, f.Fix); diff != "" {
				t.Errorf("fix (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.choices, choices); diff != "" {
				t.Errorf("choices (-want +got):\n%s", diff)
			}
		})
	}
	if f := newTestRun(Options{}).checkInlineAuth(t.Context()); f.State != Unknown {
		t.Errorf("without a provider: %+v", f)
	}
}
