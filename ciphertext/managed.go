package ciphertext

import (
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

// What GitOps tools mark the objects with that they apply.
const (
	argoTracking = "argocd.argoproj.io/tracking-id" // APPLICATION:GROUP/KIND:NAMESPACE/NAME
	argoInstance = "argocd.argoproj.io/instance"

	fluxKustomize = "kustomize.toolkit.fluxcd.io/"
	fluxHelm      = "helm.toolkit.fluxcd.io/"
)

// ManagedBy returns which GitOps tool keeps the Secret as it is in Git, such as
// "Argo CD application shop" or "Flux Kustomization flux-system/shop"; empty for
// none. What is written to such a Secret the tool will sooner or later undo.
//
// Argo CD can be told to track by the label app.kubernetes.io/instance. That is
// no sign of it: every Helm chart sets it too.
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

// printable is for what an annotation says, which may be anything, on a line of a
// log or a terminal.
func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return unicode.ReplacementChar
	}
	return r
}
