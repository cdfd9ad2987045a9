package ciphertext

import (
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

// Annotations and labels that GitOps tools set on the objects that they apply.
const (
	argoTracking = "argocd.argoproj.io/tracking-id" // APPLICATION:GROUP/KIND:NAMESPACE/NAME
	argoInstance = "argocd.argoproj.io/instance"

	fluxKustomize = "kustomize.toolkit.fluxcd.io/"
	fluxHelm      = "helm.toolkit.fluxcd.io/"
)

// ManagedBy returns the GitOps tool that manages the Secret, such as "Argo CD
// application shop" or "Flux Kustomization flux-system/shop", or an empty string. The
// tool reverts other changes of such a Secret to what is in Git.
//
// Argo CD can also track objects by the label app.kubernetes.io/instance. ManagedBy
// ignores that label, since every Helm chart sets it.
func ManagedBy(s *corev1.Secret) string {
	if id, ok := s.Annotations[argoTracking]; ok {
		app, _, _ := strings.Cut(id, ":")
		return "Argo CD application " + strings.Map(printable, app)
	}
	if app, ok := s.Labels[argoInstance]; ok {
		return "Argo CD application " + app
	}
	for _, tool := range []struct{ prefix, kind string }{{fluxKustomize, "Kustomization"}, {fluxHelm, "HelmRelease"}} {
		if name, ok := s.Labels[tool.prefix+"name"]; ok {
			return "Flux " + tool.kind + " " + s.Labels[tool.prefix+"namespace"] + "/" + name
		}
	}
	return ""
}

// printable replaces characters that must not appear in a log or on a terminal. An
// annotation may have any value.
func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return unicode.ReplacementChar
	}
	return r
}
