package rotator_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// What is kept in Git is named and not written, unless it is asked for.
func TestManaged(t *testing.T) {
	w := newWorld(t)
	argo := w.seal(w.ns, "argo", map[string]string{"e": "x"})
	argo.Annotations["argocd.argoproj.io/tracking-id"] = "shop:/Secret:" + w.ns + "/argo"
	flux := w.seal(w.ns, "flux", map[string]string{"e": "x"})
	flux.Labels["kustomize.toolkit.fluxcd.io/name"], flux.Labels["kustomize.toolkit.fluxcd.io/namespace"] = "shop",
		"flux-system"
	argo, flux = w.store(argo), w.store(flux)
	w.store(w.seal(w.ns, "free", map[string]string{"e": "x"}))
	w.rotateKey()

	for name, dry := range map[string]bool{"dry run": true, "run": false} {
		report, err := rotator.Run(t.Context(), w.retirer(), w.kube,
			w.options(retiring(0), func(o *rotator.Options) { o.DryRun = dry }))
		k := only(t, report)
		if !errors.Is(err, rotator.ErrIncomplete) || k.LeftCount != 2 || k.Failed != 0 || k.Oldest != 1 {
			t.Fatalf("%s: %v, left %v", name, err, k.Left)
		}
		for i, want := range []string{"argo/e: has key version 1 instead of 2: it is kept by Argo CD application shop,",
			"flux/e: has key version 1 instead of 2: it is kept by Flux Kustomization flux-system/shop,"} {
			if got := k.Left[i].String(); !strings.Contains(got, want) || !strings.Contains(got, "--include-managed") {
				t.Errorf("%s: %q does not say %q", name, got, want)
			}
		}
		if w.get(w.ns, "argo").ResourceVersion != argo.ResourceVersion ||
			w.get(w.ns, "flux").ResourceVersion != flux.ResourceVersion {
			t.Errorf("%s: what is kept in Git was written", name)
		}
		// Retired, they would never open again.
		if k.Retire.Done || !strings.Contains(k.Retire.Reason, "2 entries are left") &&
			!strings.Contains(k.Retire.Reason, "do not say what key") {
			t.Errorf("%s: retire: %+v", name, k.Retire)
		}
	}
	if got := versions(t, w.get(w.ns, "free"))["e"]; got != 2 {
		t.Errorf("the Secret that nobody keeps is at %d", got)
	}

	report, err := rotator.Run(t.Context(), w.minimal(), w.kube,
		w.options(func(o *rotator.Options) { o.IncludeManaged = true }))
	if k := only(t, report); err != nil || k.Rewrapped != 2 || k.LeftCount != 0 {
		t.Errorf("with IncludeManaged: %v, %+v", err, k)
	}
}

// A GitOps tool takes a Secret over while it is being written.
func TestBecomesManaged(t *testing.T) {
	for name, include := range map[string]bool{"passed over": false, "included": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.store(w.seal(w.ns, "s", map[string]string{"e": "x"}))
			newer := w.seal(w.ns, "s", map[string]string{"e": "y"})
			w.rotateKey()
			kube := w.client(beforePatch(func(n int) {
				if n > 1 {
					return
				}
				now := w.get(w.ns, "s")
				now.Data = newer.Data
				now.Annotations["argocd.argoproj.io/tracking-id"] = "shop:/Secret:" + w.ns + "/s"
				if _, err := w.kube.CoreV1().Secrets(w.ns).Update(t.Context(), now, metav1.UpdateOptions{}); err != nil {
					t.Error(err)
				}
			}))
			report, err := rotator.Run(t.Context(), w.minimal(), kube,
				w.options(func(o *rotator.Options) { o.IncludeManaged = include }))
			k := only(t, report)
			if include {
				if err != nil || k.Rewrapped != 1 || w.plain(w.ns, "s")["e"] != "y" {
					t.Errorf("%v, %+v", err, k)
				}
				return
			}
			if !errors.Is(err, rotator.ErrIncomplete) || k.LeftCount != 1 ||
				!strings.Contains(k.Left[0].Reason, "is now managed by Argo CD application shop") {
				t.Errorf("%v, left %v", err, k.Left)
			}
			if got := w.get(w.ns, "s"); !bytes.Equal(got.Data["e"], newer.Data["e"]) {
				t.Error("it was written")
			}
		})
	}
}
