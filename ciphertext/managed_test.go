package ciphertext_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

type stringMap = map[string]string

// A writer stores the Secret s, or changes it.
type writer func(ctx context.Context, secrets clientcorev1.SecretInterface) error

// created creates the Secret as a field manager does.
func created(manager string, change func(s *corev1.Secret)) writer {
	return func(ctx context.Context, secrets clientcorev1.SecretInterface) error {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "s", Labels: stringMap{ciphertext.LabelTransitKey: "k"},
				Annotations: stringMap{ciphertext.AnnotationScope: "strict"}},
			Type: ciphertext.Type, Data: map[string][]byte{"a": []byte(entry1)},
		}
		if change != nil {
			change(s)
		}
		_, err := secrets.Create(ctx, s, metav1.CreateOptions{FieldManager: manager})
		return err
	}
}

// marked creates the Secret with labels and annotations, as a program does without field manager of its own.
func marked(labels, annotations stringMap) writer {
	return created("test", func(s *corev1.Secret) { s.Labels, s.Annotations = labels, annotations })
}

// owned creates the Secret with owners.
func owned(owners ...metav1.OwnerReference) writer {
	return created("test", func(s *corev1.Secret) { s.OwnerReferences = owners })
}

// updated changes the data as a field manager does.
func updated(manager, text string) writer {
	return func(ctx context.Context, secrets clientcorev1.SecretInterface) error {
		s, err := secrets.Get(ctx, "s", metav1.GetOptions{})
		if err == nil {
			s.Data["a"] = []byte(text)
			_, err = secrets.Update(ctx, s, metav1.UpdateOptions{FieldManager: manager})
		}
		return err
	}
}

// applied applies a Secret on the server.
func applied(manager string, change func(s *corev1apply.SecretApplyConfiguration)) writer {
	return func(ctx context.Context, secrets clientcorev1.SecretInterface) error {
		s := corev1apply.Secret("s", "").WithType(ciphertext.Type)
		s.Namespace = nil
		change(s)
		_, err := secrets.Apply(ctx, s, metav1.ApplyOptions{FieldManager: manager, Force: true})
		return err
	}
}

func withData(s *corev1apply.SecretApplyConfiguration) {
	s.WithData(map[string][]byte{"a": []byte(entry1)})
}

func withStringData(s *corev1apply.SecretApplyConfiguration) {
	s.WithStringData(stringMap{"a": entry1})
}

func withLabel(s *corev1apply.SecretApplyConfiguration) { s.WithLabels(stringMap{"team": "red"}) }

// Secrets as the real API server stores them, with the managedFields that it makes.
func TestManagedBy(t *testing.T) {
	yes := true
	instance := stringMap{"app.kubernetes.io/instance": "shop"}
	withInstance := func(s *corev1.Secret) { s.Labels = instance }
	const hint = "from a manifest that is now older"
	for name, test := range map[string]struct {
		writers []writer
		want    string // the name; it reverts changes
		hint    string // instead of reverting
	}{
		"nobody":              {writers: []writer{created("test", nil)}},
		"our programs":        {writers: []writer{created("secretmanager", nil), updated("secretmanager-rotator", entry3)}},
		"another controller":  {writers: []writer{created("operator", nil), updated("operator", entry3)}},
		"kubectl create":      {writers: []writer{created("kubectl-create", nil), updated("kubectl-edit", entry3)}},
		"app label, no Argo":  {writers: []writer{created("Helm", withInstance)}},
		"managed-by, no mark": {writers: []writer{marked(stringMap{"app.kubernetes.io/managed-by": "Helm"}, nil)}},

		"controller": {writers: []writer{owned(
			metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "1"},
			metav1.OwnerReference{APIVersion: "bitnami.com/v1alpha1", Kind: "SealedSecret", Name: "s", UID: "2",
				Controller: &yes})},
			want: "SealedSecret s"},
		"owner that is no controller": {writers: []writer{owned(
			metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "1"})}, want: "ConfigMap other"},

		"Argo CD, annotation": {
			writers: []writer{marked(nil, stringMap{"argocd.argoproj.io/tracking-id": "team_shop:/Secret:x/s"})},
			want:    "Argo CD application team_shop"},
		"Argo CD, annotation without a name": {
			writers: []writer{marked(nil, stringMap{"argocd.argoproj.io/tracking-id": ""})}, want: "Argo CD application"},
		"Argo CD, hostile annotation": {
			writers: []writer{marked(nil, stringMap{"argocd.argoproj.io/tracking-id": "a\n\x1b[31mb:/Secret:x/s"})},
			want:    "Argo CD application a\ufffd\ufffd[31mb"},
		"Argo CD, long annotation": {
			writers: []writer{marked(nil, stringMap{"argocd.argoproj.io/tracking-id": strings.Repeat("é", 100_000)})},
			want:    "Argo CD application " + strings.Repeat("é", 180) + "…"},
		"Argo CD, its own label": {writers: []writer{marked(stringMap{"argocd.argoproj.io/instance": "shop"}, nil)},
			want: "Argo CD application shop"},
		"Argo CD, app label": {writers: []writer{created("argocd-controller", withInstance)},
			want: "Argo CD application shop"},
		"Argo CD 2.3, app label": {writers: []writer{created("argocd-application-controller", withInstance)},
			want: "Argo CD application shop"},
		"Argo CD, app label, entries written by others": {
			writers: []writer{created("argocd-controller", withInstance), updated("test", entry3)},
			want:    "Argo CD application shop"},
		"Argo CD, another tracking label": {writers: []writer{created("argocd-controller", nil)}, want: "Argo CD"},
		"Argo CD, server-side apply":      {writers: []writer{applied("argocd-controller", withData)}, want: "Argo CD"},
		"Argo CD only labeled it":         {writers: []writer{created("test", nil), applied("argocd-controller", withLabel)}},

		"Flux Kustomization": {writers: []writer{marked(stringMap{"kustomize.toolkit.fluxcd.io/name": "shop",
			"kustomize.toolkit.fluxcd.io/namespace": "flux"}, nil)}, want: "Flux Kustomization flux/shop"},
		"Flux HelmRelease": {writers: []writer{marked(stringMap{"helm.toolkit.fluxcd.io/name": "shop",
			"helm.toolkit.fluxcd.io/namespace": "flux"}, stringMap{"meta.helm.sh/release-name": "shop"})},
			want: "Flux HelmRelease flux/shop"},
		"kustomize-controller": {writers: []writer{applied("kustomize-controller", withData)},
			want: "Flux kustomize-controller"},
		"helm-controller": {writers: []writer{created("helm-controller", nil)}, want: "Flux helm-controller"},

		"Helm 3": {writers: []writer{created("helm", func(s *corev1.Secret) {
			s.Annotations = stringMap{"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "demo"}
		})}, want: "Helm release demo/shop"},
		"Helm 4 without annotations": {writers: []writer{applied("helm", withData)}, want: "field manager helm"},

		"kapp, label": {writers: []writer{marked(stringMap{"kapp.k14s.io/app": "17"}, nil)}, want: "kapp"},
		"kapp, annotation": {writers: []writer{marked(nil, stringMap{"kapp.k14s.io/identity": "v1;x//Secret/s;v1"})},
			want: "kapp"},
		"kapp, original": {writers: []writer{marked(nil, stringMap{"kapp.k14s.io/original": "{}"})}, want: "kapp"},

		"External Secrets, label": {
			writers: []writer{marked(stringMap{"reconcile.external-secrets.io/managed": "true"}, nil)},
			want:    "External Secrets"},
		"External Secrets, annotation": {
			writers: []writer{marked(nil, stringMap{"reconcile.external-secrets.io/data-hash": "1"})}, want: "External Secrets"},

		"replicator, pulled copy": {
			writers: []writer{marked(nil, stringMap{"replicator.v1.mittwald.de/replicate-from": "x/s"})},
			want:    "kubernetes-replicator"},
		"replicator, pushed copy": {
			writers: []writer{marked(nil, stringMap{"replicator.v1.mittwald.de/replicated-at": "now"})},
			want:    "kubernetes-replicator"},
		"replicator, version": {
			writers: []writer{marked(nil, stringMap{"replicator.v1.mittwald.de/replicated-from-version": "1"})},
			want:    "kubernetes-replicator"},
		"replicator, source": {writers: []writer{marked(nil, stringMap{"replicator.v1.mittwald.de/replicate-to": "x",
			"replicator.v1.mittwald.de/replication-allowed": "true"})}},
		"Reflector, copy": {writers: []writer{marked(nil, stringMap{"reflector.v1.k8s.emberstack.com/reflects": "x/s"})},
			want: "Reflector"},
		"Reflector, source": {writers: []writer{marked(nil, stringMap{
			"reflector.v1.k8s.emberstack.com/reflection-allowed": "true"})}},
		"config-syncer, copy": {writers: []writer{marked(nil, stringMap{"kubed.appscode.com/origin": "{}"})},
			want: "config-syncer"},
		"config-syncer, source": {writers: []writer{marked(nil, stringMap{"kubed.appscode.com/sync": ""})}},
		"Kyverno, copy": {writers: []writer{marked(stringMap{"generate.kyverno.io/policy-name": "sync"}, nil)},
			want: "Kyverno policy sync"},
		"Kyverno, source": {writers: []writer{marked(stringMap{"generate.kyverno.io/clone-source": ""}, nil)}},

		"applied":             {writers: []writer{applied("operator", withData)}, want: "field manager operator"},
		"applied, stringData": {writers: []writer{applied("operator", withStringData)}, want: "field manager operator"},
		"applied after us": {writers: []writer{created("secretmanager", nil), applied("operator", withData)},
			want: "field manager operator"},
		"applied a label": {writers: []writer{created("test", nil), applied("operator", withLabel)}},
		"applied, then written by us": {
			writers: []writer{applied("operator", withData), updated("secretmanager-rotator", entry3)}},
		"kubectl apply --server-side": {writers: []writer{applied("kubectl", withData)}, hint: hint},
		"kubectl apply --server-side, then rewrapped": {
			writers: []writer{applied("kubectl", withData), updated("secretmanager-rotator", entry3)}, hint: hint},
		"kubectl and an operator": {writers: []writer{applied("kubectl", withData), applied("operator", withData)},
			want: "field manager operator"},
		"applied by us": {writers: []writer{applied("secretmanager", withData)}, hint: hint},
		"kubectl apply": {writers: []writer{created("kubectl-client-side-apply", func(s *corev1.Secret) {
			s.Annotations = stringMap{ciphertext.AnnotationLastApplied: "{}"}
		})}, hint: hint},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stored(t, test.writers)
			got := ciphertext.ManagedBy(s)
			wantName := got.Name != "" == (test.want != "" || test.hint != "")
			if !wantName || test.want != "" && got.Name != test.want || got.Reverts != (test.want != "") ||
				!strings.Contains(got.Hint, test.hint) || (got.Hint == "") != (got.Name == "") {
				t.Errorf("got %+v, want %q, hint %q; managedFields: %v", got, test.want, test.hint, s.ManagedFields)
			}
		})
	}
}

// stored returns the Secret s after all writes.
func stored(t *testing.T, writers []writer) *corev1.Secret {
	t.Helper()
	api := testenv.SharedAPIServer(t)
	kube := kubernetes.NewForConfigOrDie(api.Config)
	ns, err := kube.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "managed-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secrets := kube.CoreV1().Secrets(ns.Name)
	for _, write := range writers {
		if err := write(t.Context(), secrets); err != nil {
			t.Fatal(err)
		}
	}
	s, err := secrets.Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
