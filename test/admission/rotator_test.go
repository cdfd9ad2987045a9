package admission

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretpatch"
)

// newRotator returns a fixture with the rotator of manifests/rotator, whose policy is enforced, and the rotator's
// client.
func newRotator(t *testing.T) (*fixture, kubernetes.Interface) {
	t.Helper()
	w := newFixture(t)
	w.must(InstallRotator(t.Context(), w.server.Kubeconfig))
	w.must(w.create(plain("plain")))
	rotator := w.client(RotatorUser, "system:serviceaccounts", "system:authenticated")
	name := types.NamespacedName{Namespace: w.ns, Name: "plain"}
	w.must(AwaitRotatorPolicy(t.Context(), rotator, name, true))
	return w, rotator
}

// client returns a client that acts as another user.
func (w *fixture) client(user string, groups ...string) kubernetes.Interface {
	w.t.Helper()
	config := rest.CopyConfig(w.server.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	kube, err := kubernetes.NewForConfig(config)
	w.must(err)
	return kube
}

// TestRotatorPolicy sends random patches as the rotator, most of which its policy must deny. It compares each decision
// with that of mayChange, and each accepted result too.
func TestRotatorPolicy(t *testing.T) {
	patches := 1000
	if os.Getenv("SECRETMANAGER_TEST_LONG") != "" {
		patches = 10_000
	}
	w, rotator := newRotator(t)
	stored := w.storeTargets()
	var mu sync.Mutex
	accepted, denied := map[string]int{}, map[string]int{}
	var group errgroup.Group
	group.SetLimit(8)
	for number := range patches {
		group.Go(func() error {
			attempt := newAttempt(number, stored)
			got, err := rotator.CoreV1().Secrets(w.ns).Patch(t.Context(), attempt.old.Name, attempt.kind, attempt.patch,
				attempt.options)
			if problem := attempt.check(got, err); problem != "" {
				t.Errorf("patch %d, %s of %s, %s: %s\n%.3000s", number, attempt.kind, attempt.old.Name, attempt.changes,
					problem, attempt.patch)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, name := range attempt.names {
				if err == nil {
					accepted[name]++
				} else if DeniedByRotatorPolicy(err) {
					denied[name]++
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("accepted: %v\ndenied: %v", accepted, denied)
	for _, c := range changes {
		if c.legal && accepted[c.name] == 0 || !c.legal && !c.invalid && denied[c.name] == 0 {
			t.Errorf("no patch covers %q: %d accepted, %d denied", c.name, accepted[c.name], denied[c.name])
		}
	}
}

// check compares the response of the API server with what it should be.
func (a *attempt) check(got *corev1.Secret, err error) string {
	legal := mayChange(a.old, a.desired)
	switch {
	case err == nil && !mayChange(a.old, got):
		return "accepted, and it changed more than ciphertext"
	case err == nil && !legal:
		return "accepted, and the rotator may not do it"
	case err == nil:
		return ""
	case DeniedByRotatorPolicy(err) && legal:
		return "denied: " + err.Error()
	case DeniedByRotatorPolicy(err):
		return ""
	case a.invalid || a.old.Name == "immutable" && apierrors.IsInvalid(err):
		return ""
	}
	return "unexpected error: " + err.Error()
}

// mayChange reports whether the rotator may change a Secret to another. Unlike the policy, it reads the decoded values.
func mayChange(old, desired *corev1.Secret) bool {
	if _, labeled := old.Labels[ciphertext.LabelTransitKey]; old.Type != ciphertext.Type && !labeled ||
		len(old.Data) != len(desired.Data) {
		return false
	}
	for name, text := range old.Data {
		after, ok := desired.Data[name]
		if !ok || !bytes.Equal(text, after) && !mayReplace(text, after) {
			return false
		}
	}
	return mayRelabel(old.Labels, desired.Labels, ciphertext.LabelKeyVersion) &&
		mayRelabel(old.Annotations, desired.Annotations, ciphertext.AnnotationRewrapped) &&
		equality.Semantic.DeepEqual(fixedFields(old), fixedFields(desired))
}

// prefix is the beginning of ciphertext. 49 bytes are the shortest ciphertext.
var prefix = regexp.MustCompile(`^vault:v[1-9][0-9]{0,5}:`)

func mayReplace(old, desired []byte) bool {
	difference := len(old) - len(desired)
	return len(old) >= 49 && len(desired) >= 49 && prefix.Match(old) && prefix.Match(desired) &&
		difference <= 5 && difference >= -5 // the digits of the version
}

var version = regexp.MustCompile(`^[1-9][0-9]{0,5}$`)

// mayRelabel reports whether labels or annotations differ only in the key version under one name.
func mayRelabel(old, desired map[string]string, name string) bool {
	if old[name] != desired[name] && !version.MatchString(desired[name]) {
		return false
	}
	old, desired = maps.Clone(old), maps.Clone(desired)
	delete(old, name)
	delete(desired, name)
	return maps.Equal(old, desired)
}

// fixedFields returns a copy without the fields that mayChange compares otherwise, and without those of the server.
func fixedFields(s *corev1.Secret) *corev1.Secret {
	s = s.DeepCopy()
	s.Data, s.Labels, s.Annotations, s.ManagedFields, s.ResourceVersion, s.Generation = nil, nil, nil, nil, "", 0
	s.TypeMeta = metav1.TypeMeta{}
	return s
}

// TestRotatorVerbs: patch is the only verb with which the rotator can change a Secret, and the policy denies what
// another role would let it do. Other users of the same rights are not affected.
func TestRotatorVerbs(t *testing.T) {
	ctx, dryRun := t.Context(), []string{metav1.DryRunAll}
	calls := map[string]func(kubernetes.Interface, string) error{
		"create": func(kube kubernetes.Interface, ns string) error {
			_, err := kube.CoreV1().Secrets(ns).Create(ctx, secret("new"), metav1.CreateOptions{DryRun: dryRun})
			return err
		},
		"create by apply": func(kube kubernetes.Interface, ns string) error {
			_, err := kube.CoreV1().Secrets(ns).Patch(ctx, "new", types.ApplyPatchType,
				[]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"new"},"type":"secretmanager.io/ciphertext"}`),
				metav1.PatchOptions{DryRun: dryRun, FieldManager: "rotator"})
			return err
		},
		"update": func(kube kubernetes.Interface, ns string) error {
			s := plain("plain", entry("good", string(text("4"))))
			_, err := kube.CoreV1().Secrets(ns).Update(ctx, s, metav1.UpdateOptions{DryRun: dryRun})
			return err
		},
		"delete": func(kube kubernetes.Interface, ns string) error {
			return kube.CoreV1().Secrets(ns).Delete(ctx, "ours", metav1.DeleteOptions{DryRun: dryRun})
		},
		"deletecollection": func(kube kubernetes.Interface, ns string) error {
			return kube.CoreV1().Secrets(ns).DeleteCollection(ctx, metav1.DeleteOptions{DryRun: dryRun}, metav1.ListOptions{})
		},
	}
	w, rotator := newRotator(t)
	w.must(w.create(secret("ours")))
	privileged := w.client(RotatorUser, "system:masters")
	other := w.client("system:serviceaccount:other:secretmanager-rotator", "system:masters")
	for name, call := range calls {
		if err := call(rotator, w.ns); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want an error of RBAC", name, err)
		}
		if err := call(privileged, w.ns); !DeniedByRotatorPolicy(err) {
			t.Errorf("%s with more rights: %v, want a denial", name, err)
		}
		if err := call(other, w.ns); err != nil {
			t.Errorf("%s by another user: %v", name, err)
		}
	}
	for _, subresource := range []string{"status", "scale", "ephemeralcontainers"} {
		_, err := privileged.CoreV1().Secrets(w.ns).Patch(ctx, "ours", types.MergePatchType, []byte(`{"immutable":true}`),
			metav1.PatchOptions{DryRun: dryRun}, subresource)
		if !apierrors.IsNotFound(err) && !DeniedByRotatorPolicy(err) {
			t.Errorf("patch of secrets/%s: %v", subresource, err)
		}
	}
}

// TestRotatorPolicyOfLargeSecrets: the API server limits the cost of an expression. It accepts the patches of the
// rotator for Secrets with as many entries, or values as long, as a Secret can have.
func TestRotatorPolicyOfLargeSecrets(t *testing.T) {
	w, rotator := newRotator(t)
	for name, size := range map[string]struct {
		entries, bytes int
		denied         bool
	}{
		"12,000 small entries":    {12000, 28, false},
		"9,900 entries":           {9900, 48, false},
		"4,000 entries":           {4000, 150, false},
		"one entry of a megabyte": {1, (ciphertext.MaxSecretSize - 12) / 4 * 3, false},
		"ten long entries":        {10, (ciphertext.MaxSecretSize/10 - 12) / 4 * 3, false},
		// No Secret has that many entries. An error of the policy denies the request.
		"18,000 small entries": {18000, 28, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := secret("large-"+strings.NewReplacer(" ", "-", ",", "").Replace(name), annotation("team", "red"))
			s.Data = nil
			rewrapped := map[string][]byte{}
			for i := range size.entries {
				entry(fmt.Sprintf("entry-%d", i), string(textOf("98", size.bytes)))(s)
				rewrapped[fmt.Sprintf("entry-%d", i)] = textOf("99", size.bytes)
			}
			stored, err := w.kube.CoreV1().Secrets(w.ns).Create(t.Context(), s, metav1.CreateOptions{})
			w.must(err)
			_, err = secretpatch.Writer{Kube: rotator}.WriteFrom(t.Context(),
				types.NamespacedName{Namespace: w.ns, Name: s.Name}, stored,
				func(current *corev1.Secret) (*secretpatch.Patch, error) {
					patch := secretpatch.New(current)
					patch.SetEntries(rewrapped)
					patch.SetAnnotation(ciphertext.AnnotationRewrapped, patch.SetKeyVersion())
					return patch, nil
				})
			if size.denied && (err == nil || !strings.Contains(err.Error(), "cost limit exceeded")) ||
				!size.denied && err != nil {
				t.Errorf("%.1000v", err)
			}
		})
	}
}
