package ciphertext

import (
	"cmp"
	"encoding/json"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Field managers of people and of our programs. What they applied is not applied again
// unless somebody does so.
const (
	kubectlManager    = "kubectl" // and kubectl-client-side-apply, kubectl-edit, …
	authorManager     = "secretmanager"
	argoManager       = "argocd-controller"
	argoLegacyManager = "argocd-application-controller"
)

// instanceLabel is the label by which Argo CD before 3.0 tracks objects. Every Helm chart
// sets it too.
const instanceLabel = "app.kubernetes.io/instance"

// kubectlHint is the hint for a Secret that kubectl applied.
const kubectlHint = "kubectl applied it from a manifest that is now older than the Secret: change that manifest too " +
	"(rewrap, edit -f or encrypt --merge-into), because applying it again reverts the Secret"

// maxManagerName bounds a name for messages, in characters.
const maxManagerName = 200

// Manager is who else writes a Secret.
type Manager struct {
	// Name is for messages, such as "Argo CD application shop"; empty if nobody else is
	// known to write the Secret.
	Name string
	// Reverts is whether the manager, without being asked to, reverts a change by others
	// or overwrites it.
	Reverts bool
	// Hint is what somebody should know who changes the Secret; empty if Name is.
	Hint string
}

// A mark is a label or an annotation that a program sets on the Secrets that it writes.
type mark struct {
	program        string
	key            string // of a label or an annotation; with a final slash, a prefix
	name           bool   // the value is a name, to be added to that of the program
	namespacedWith string // the label or annotation with the namespace of that name
}

// Replicators mark their source, too, with other labels and annotations than the copy.
var marks = []mark{
	{"Argo CD application", "argocd.argoproj.io/tracking-id", true, ""}, // APPLICATION:GROUP/KIND:NAMESPACE/NAME
	{"Argo CD application", "argocd.argoproj.io/instance", true, ""},
	{"Flux Kustomization", "kustomize.toolkit.fluxcd.io/name", true, "kustomize.toolkit.fluxcd.io/namespace"},
	{"Flux HelmRelease", "helm.toolkit.fluxcd.io/name", true, "helm.toolkit.fluxcd.io/namespace"},
	{"Helm release", "meta.helm.sh/release-name", true, "meta.helm.sh/release-namespace"},
	{"kapp", "kapp.k14s.io/app", false, ""},
	{"kapp", "kapp.k14s.io/identity", false, ""},
	{"kapp", "kapp.k14s.io/original", false, ""},
	{"External Secrets", "reconcile.external-secrets.io/", false, ""},
	{"kubernetes-replicator", "replicator.v1.mittwald.de/replicate-from", false, ""},
	{"kubernetes-replicator", "replicator.v1.mittwald.de/replicated-from-version", false, ""},
	{"kubernetes-replicator", "replicator.v1.mittwald.de/replicated-at", false, ""},
	{"Reflector", "reflector.v1.k8s.emberstack.com/reflects", false, ""},
	{"config-syncer", "kubed.appscode.com/origin", false, ""},
	{"Kyverno policy", "generate.kyverno.io/policy-name", true, ""},
}

// controllers are programs that are known by their field manager.
var controllers = map[string]string{
	argoManager:            "Argo CD",
	argoLegacyManager:      "Argo CD",
	"kustomize-controller": "Flux kustomize-controller",
	"helm-controller":      "Flux helm-controller",
}

// ManagedBy returns who else writes the Secret: its owners; a program such as Argo CD,
// Flux, Helm, kapp, External Secrets or a replicator, by its labels and annotations; or a
// field manager that applied its data. It needs the managedFields of the Secret, without
// which it does not recognize field managers.
func ManagedBy(s *corev1.Secret) Manager {
	name := owner(s)
	if name == "" {
		name = marked(s)
	}
	if name == "" {
		name = applier(s)
	}
	if name != "" {
		name = printable(name)
		return Manager{Name: name, Reverts: true, Hint: "the Secret is managed by " + name + ", which will revert the change"}
	}
	if who := kubectl(s); who != "" {
		return Manager{Name: printable(who), Hint: kubectlHint}
	}
	return Manager{}
}

// owner returns kind and name of the owner, preferably the one that is the controller.
func owner(s *corev1.Secret) string {
	if o := metav1.GetControllerOfNoCopy(s); o != nil {
		return o.Kind + " " + o.Name
	}
	for _, o := range s.OwnerReferences {
		return o.Kind + " " + o.Name
	}
	return ""
}

// marked returns the program that set one of the marks.
func marked(s *corev1.Secret) string {
	for _, m := range marks {
		value, ok := m.find(s.Annotations)
		if !ok {
			value, ok = m.find(s.Labels)
		}
		switch {
		case !ok:
			continue
		case !m.name:
			return m.program
		}
		value, _, _ = strings.Cut(value, ":")
		if m.namespacedWith != "" {
			value = cmp.Or(s.Annotations[m.namespacedWith], s.Labels[m.namespacedWith]) + "/" + value
		}
		return strings.TrimSuffix(m.program+" "+value, " ")
	}
	return ""
}

func (m mark) find(values map[string]string) (value string, ok bool) {
	if !strings.HasSuffix(m.key, "/") {
		value, ok = values[m.key]
		return value, ok
	}
	for name := range values {
		if strings.HasPrefix(name, m.key) {
			return "", true
		}
	}
	return "", false
}

// applier returns the program whose field manager shows that it writes the Secret.
func applier(s *corev1.Secret) string {
	for _, m := range s.ManagedFields {
		name, known := controllers[m.Manager]
		switch {
		case name == "Argo CD" && s.Labels[instanceLabel] != "":
			return "Argo CD application " + s.Labels[instanceLabel]
		case known && ownsData(m):
			return name
		case m.Operation == metav1.ManagedFieldsOperationApply && !manual(m.Manager) && ownsData(m):
			return "field manager " + m.Manager
		}
	}
	return ""
}

// manual reports whether a field manager is a person or one of our programs.
func manual(manager string) bool {
	return strings.HasPrefix(manager, kubectlManager) || manager == authorManager || manager == RotatorManager
}

// ownsData reports whether a field manager owns entries.
func ownsData(m metav1.ManagedFieldsEntry) bool {
	if m.FieldsV1 == nil {
		return false
	}
	var fields struct {
		Data       json.RawMessage `json:"f:data"`
		StringData json.RawMessage `json:"f:stringData"`
	}
	return json.Unmarshal(m.FieldsV1.GetRawBytes(), &fields) != nil || fields.Data != nil || fields.StringData != nil
}

// kubectl returns the field manager with which somebody applied the Secret from a file.
func kubectl(s *corev1.Secret) string {
	for _, m := range s.ManagedFields {
		if m.Operation == metav1.ManagedFieldsOperationApply && manual(m.Manager) {
			return m.Manager
		}
	}
	if s.Annotations[AnnotationLastApplied] != "" {
		return kubectlManager
	}
	return ""
}

// printable replaces characters that must not appear in a log or on a terminal, and
// shortens the name. An annotation may have any value.
func printable(name string) string {
	count := 0
	end := strings.IndexFunc(name, func(rune) bool { count++; return count > maxManagerName })
	if end >= 0 {
		name = name[:end] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, name)
}
