// Package admission tests the admission policies of manifests/admission on a real API server: what they deny, their
// messages, and that they admit everything that the product writes.
//
// It also enforces the policies in the tests of other packages: [Load] a policy, limit it with [Policy.Only] to the
// namespace of a test, so that tests that share an API server do not affect each other, and [Policy.Enforce] it.
package admission

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// The directories of the policies in manifests/admission.
const (
	Ciphertext      = "ciphertext"
	ForbidPlaintext = "forbid-plaintext"
)

// Policy is a policy and its binding.
type Policy struct {
	*admissionv1.ValidatingAdmissionPolicy
	Binding *admissionv1.ValidatingAdmissionPolicyBinding
}

// Load reads a policy from its directory in manifests/admission.
func Load(dir string) (*Policy, error) {
	root, err := programs.Root()
	if err != nil {
		return nil, err
	}
	return Build(filesys.MakeFsOnDisk(), filepath.Join(root, "manifests", "admission", dir))
}

// Build reads the policy that a kustomization builds.
func Build(files filesys.FileSystem, dir string) (*Policy, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, dir)
	if err != nil {
		return nil, fmt.Errorf("building the policy in %s: %w", dir, err)
	}
	p := &Policy{}
	for _, object := range built.Resources() {
		text, err := object.AsYAML()
		if err != nil {
			return nil, err
		}
		switch kind := object.GetKind(); kind {
		case "ValidatingAdmissionPolicy":
			err = yaml.UnmarshalStrict(text, &p.ValidatingAdmissionPolicy)
		case "ValidatingAdmissionPolicyBinding":
			err = yaml.UnmarshalStrict(text, &p.Binding)
		default:
			err = fmt.Errorf("unexpected %s", kind)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the policy in %s: %w", dir, err)
		}
	}
	if p.ValidatingAdmissionPolicy == nil || p.Binding == nil {
		return nil, fmt.Errorf("the kustomization in %s must have a policy and a binding", dir)
	}
	return p, nil
}

// Only limits the policy to one namespace, and appends the namespace to its name.
func (p *Policy) Only(namespace string) *Policy {
	p.Name += "." + namespace
	p.Binding.Name, p.Binding.Spec.PolicyName = p.Name, p.Name
	p.Binding.Spec.MatchResources = &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
		MatchLabels: map[string]string{corev1.LabelMetadataName: namespace},
	}}
	return p
}

// Enforce creates the policy and waits until the API server enforces it in the namespace.
func (p *Policy) Enforce(ctx context.Context, kube kubernetes.Interface, namespace string) error {
	api := kube.AdmissionregistrationV1()
	_, err := api.ValidatingAdmissionPolicies().Create(ctx, p.ValidatingAdmissionPolicy, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating the policy %s: %w", p.Name, err)
	}
	if _, err := api.ValidatingAdmissionPolicyBindings().Create(ctx, p.Binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("binding the policy %s: %w", p.Name, err)
	}
	return p.Await(ctx, kube, namespace)
}

// Await waits until the API server enforces the policy in the namespace. That takes some time after the policy was
// created or the namespace labeled.
func (p *Policy) Await(ctx context.Context, kube kubernetes.Interface, namespace string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute,
		fmt.Errorf("the API server does not enforce the policy %s in namespace %s after a minute", p.Name, namespace))
	defer cancel()
	// Each is denied by one of the two policies: the API server names only the first that denies.
	meta := metav1.ObjectMeta{GenerateName: "probe-"}
	probes := []*corev1.Secret{
		{ObjectMeta: meta, Type: ciphertext.Type},
		{ObjectMeta: meta, Data: map[string][]byte{"probe": []byte("plaintext")}},
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, probe := range probes {
			dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
			_, err := kube.CoreV1().Secrets(namespace).Create(ctx, probe, dryRun)
			if err != nil && strings.Contains(err.Error(), "'"+p.Name+"' with binding") {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
