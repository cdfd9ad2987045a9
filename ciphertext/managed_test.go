package ciphertext

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestManagedBy(t *testing.T) {
	type m = map[string]string
	tests := map[string]struct {
		labels, annotations m
		want                string
	}{
		"nobody":              {m{LabelTransitKey: "k"}, m{AnnotationScope: "strict"}, ""},
		"Argo CD, annotation": {nil, m{"argocd.argoproj.io/tracking-id": "shop:/Secret:demo/s"}, "Argo CD application shop"},
		"Argo CD in namespace": {nil, m{"argocd.argoproj.io/tracking-id": "team_shop:/Secret:demo/s"},
			"Argo CD application team_shop"},
		"Argo CD, not a name": {nil, m{"argocd.argoproj.io/tracking-id": "a\n\x1b[31mb:/Secret:demo/s"},
			"Argo CD application a��[31mb"},
		"Argo CD, label": {m{"argocd.argoproj.io/instance": "shop"}, nil, "Argo CD application shop"},
		"Flux Kustomization": {m{"kustomize.toolkit.fluxcd.io/name": "shop",
			"kustomize.toolkit.fluxcd.io/namespace": "flux"}, nil, "Flux Kustomization flux/shop"},
		"Flux HelmRelease": {m{"helm.toolkit.fluxcd.io/name": "shop", "helm.toolkit.fluxcd.io/namespace": "flux"},
			nil, "Flux HelmRelease flux/shop"},
		"a Helm chart": {m{"app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm"},
			m{"meta.helm.sh/release-name": "shop"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Labels: test.labels, Annotations: test.annotations}}
			if got := ManagedBy(s); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
