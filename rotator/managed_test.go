package rotator_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// Secrets that a GitOps tool manages are reported and not written, unless IncludeManaged is set.
func TestManaged(t *testing.T) {
	f := newServerFixture(t)
	argo := f.encrypt(f.Namespace, "argo", map[string]string{"e": "x"})
	argo.Annotations["argocd.argoproj.io/tracking-id"] = "shop:/Secret:" + f.Namespace + "/argo"
	flux := f.encrypt(f.Namespace, "flux", map[string]string{"e": "x"})
	flux.Labels["kustomize.toolkit.fluxcd.io/name"], flux.Labels["kustomize.toolkit.fluxcd.io/namespace"] = "shop",
		"flux-system"
	argo, flux = f.CreateSecret(argo), f.CreateSecret(flux)
	f.CreateSecret(f.encrypt(f.Namespace, "free", map[string]string{"e": "x"}))
	f.RotateKey()

	for name, dry := range map[string]bool{"dry run": true, "run": false} {
		report, err := rotator.Run(t.Context(), f.retirer(), f.Kube,
			f.options(retiring(0), func(o *rotator.Options) { o.DryRun = dry }))
		k := onlyKey(t, report)
		if !errors.Is(err, rotator.ErrIncomplete) || k.Unresolved.Count != 2 || k.Failed != 0 || k.Oldest != 1 {
			t.Fatalf("%s: %v, unresolved: %v", name, err, k.Unresolved.Items)
		}
		for i, want := range []string{"argo/e: SecretManaged: has key version 1 instead of 2: it is managed by " +
			"Argo CD application shop,",
			"flux/e: SecretManaged: has key version 1 instead of 2: it is managed by Flux Kustomization flux-system/shop,"} {
			got := k.Unresolved.Items[i].String()
			if !strings.Contains(got, want) || !strings.Contains(got, "--include-managed") {
				t.Errorf("%s: %q does not contain %q", name, got, want)
			}
		}
		if f.GetSecret(f.Namespace, "argo").ResourceVersion != argo.ResourceVersion ||
			f.GetSecret(f.Namespace, "flux").ResourceVersion != flux.ResourceVersion {
			t.Errorf("%s: a managed Secret was written", name)
		}
		// Retirement would make them impossible to decrypt.
		if k.Retire.Done || k.Retire.Blocked != rotator.BlockerInUse {
			t.Errorf("%s: retire: %+v", name, k.Retire)
		}
	}
	if got := versions(t, f.GetSecret(f.Namespace, "free"))["e"]; got != 2 {
		t.Errorf("the Secret without manager is at version %d", got)
	}

	report, err := rotator.Run(t.Context(), f.minimal(), f.Kube,
		f.options(func(o *rotator.Options) { o.IncludeManaged = true }))
	if k := onlyKey(t, report); err != nil || k.Rewrapped != 2 || k.Unresolved.Count != 0 {
		t.Errorf("with IncludeManaged: %v, %+v", err, k)
	}
}

// A GitOps tool begins to manage a Secret while the rotator writes it.
func TestManagedDuringRun(t *testing.T) {
	for name, include := range map[string]bool{"skipped": false, "included": true} {
		t.Run(name, func(t *testing.T) {
			f := newServerFixture(t)
			f.CreateSecret(f.encrypt(f.Namespace, "s", map[string]string{"e": "x"}))
			newer := f.encrypt(f.Namespace, "s", map[string]string{"e": "y"})
			f.RotateKey()
			kube := f.Client(fixture.BeforeEach(http.MethodPatch, func(n int) {
				if n > 1 {
					return
				}
				current := f.GetSecret(f.Namespace, "s")
				current.Data = newer.Data
				current.Annotations["argocd.argoproj.io/tracking-id"] = "shop:/Secret:" + f.Namespace + "/s"
				if _, err := f.Kube.CoreV1().Secrets(f.Namespace).Update(t.Context(), current, metav1.UpdateOptions{}); err != nil {
					t.Error(err)
				}
			}))
			report, err := rotator.Run(t.Context(), f.minimal(), kube,
				f.options(func(o *rotator.Options) { o.IncludeManaged = include }))
			k := onlyKey(t, report)
			if include {
				if err != nil || k.Rewrapped != 1 || f.plain(f.Namespace, "s")["e"] != "y" {
					t.Errorf("%v, %+v", err, k)
				}
				return
			}
			if !errors.Is(err, rotator.ErrIncomplete) || k.Unresolved.Count != 1 ||
				!strings.Contains(k.Unresolved.Items[0].Reason, "is now managed by Argo CD application shop") {
				t.Errorf("%v, unresolved: %v", err, k.Unresolved.Items)
			}
			if got := f.GetSecret(f.Namespace, "s"); !bytes.Equal(got.Data["e"], newer.Data["e"]) {
				t.Error("the Secret was written")
			}
		})
	}
}

// The rotator recognizes field managers: it keeps the managedFields of a list until it has decided.
// What kubectl applied is rewrapped and counted.
func TestManagedByFieldManager(t *testing.T) {
	f := newServerFixture(t)
	for name, manager := range map[string]string{"operator": "operator", "person": "kubectl"} {
		s := f.encrypt(f.Namespace, name, map[string]string{"e": "x"})
		_, err := f.Kube.CoreV1().Secrets(f.Namespace).Apply(t.Context(), corev1apply.Secret(name, f.Namespace).
			WithType(s.Type).WithLabels(s.Labels).WithAnnotations(s.Annotations).WithData(s.Data),
			metav1.ApplyOptions{FieldManager: manager})
		f.Must(err)
	}
	f.RotateKey()
	person := f.GetSecret(f.Namespace, "person")
	run := func(include bool) (*rotator.KeyReport, error) {
		report, err := rotator.Run(t.Context(), f.minimal(), f.Kube,
			f.options(func(o *rotator.Options) { o.IncludeManaged = include }))
		return onlyKey(t, report), err
	}
	k, err := run(false)
	if !errors.Is(err, rotator.ErrIncomplete) || k.Rewrapped != 1 || k.Unresolved.Count != 1 ||
		!strings.Contains(k.Unresolved.Items[0].Reason, "SecretManaged: has key version 1 instead of 2: it is managed by "+
			"field manager operator") {
		t.Errorf("%v, %+v", err, k)
	}
	// Applying the older manifest again is a conflict with the rotator, not a silent way back.
	again := corev1apply.Secret("person", f.Namespace).WithData(person.Data)
	_, err = f.Kube.CoreV1().Secrets(f.Namespace).Apply(t.Context(), again, metav1.ApplyOptions{FieldManager: "kubectl"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), ".data.e") {
		t.Errorf("applied again: %v", err)
	}
	if k.OlderManifests != 1 {
		t.Errorf("%d manifests are older", k.OlderManifests)
	}
	if k, err := run(true); err != nil || k.Rewrapped != 1 || k.OlderManifests != 0 {
		t.Errorf("with IncludeManaged: %v, %+v", err, k)
	}
}
