// Package admission tests the admission policies of manifests/admission on a real
// API server: what they refuse and how they say it, and that everything that the
// product writes passes.
//
// Its other purpose is to put them into force for the tests of other packages:
// [Load] a policy, narrow it with [Policy.Only] to the namespace of a test, so that
// tests that share an API server do not hinder each other, and [Policy.Enforce] it.
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

// The folders of the policies below manifests/admission.
const (
	Ciphertext      = "ciphertext"
	ForbidPlaintext = "forbid-plaintext"
)

// Policy is a policy and what binds it.
type Policy struct {
	*admissionv1.ValidatingAdmissionPolicy
	Binding *admissionv1.ValidatingAdmissionPolicyBinding
}

// Load reads a policy as it is shipped.
func Load(folder string) (*Policy, error) {
	root, err := programs.Root()
	if err != nil {
		return nil, err
	}
	return Build(filesys.MakeFsOnDisk(), filepath.Join(root, "manifests", "admission", folder))
}

// Build reads the policy that a kustomization makes.
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
			err = fmt.Errorf("a %s", kind)
		}
		if err != nil {
			return nil, fmt.Errorf("in the policy in %s: %w", dir, err)
		}
	}
	if p.ValidatingAdmissionPolicy == nil || p.Binding == nil {
		return nil, fmt.Errorf("the policy in %s is not a policy and a binding", dir)
	}
	return p, nil
}

// Only makes it a policy for one namespace, under a name that goes with it.
func (p *Policy) Only(namespace string) *Policy {
	p.Name += "." + namespace
	p.Binding.Name, p.Binding.Spec.PolicyName = p.Name, p.Name
	p.Binding.Spec.MatchResources = &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
		MatchLabels: map[string]string{corev1.LabelMetadataName: namespace},
	}}
	return p
}

// Enforce creates the policy and returns once it is in force in the namespace.
func (p *Policy) Enforce(ctx context.Context, kube kubernetes.Interface, namespace string) error {
	api := kube.AdmissionregistrationV1()
	if _, err := api.ValidatingAdmissionPolicies().Create(ctx, p.ValidatingAdmissionPolicy, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating the policy %s: %w", p.Name, err)
	}
	if _, err := api.ValidatingAdmissionPolicyBindings().Create(ctx, p.Binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("binding the policy %s: %w", p.Name, err)
	}
	return p.Await(ctx, kube, namespace)
}

// Await returns once the policy is in force in the namespace, which it is some time
// after it was created or the namespace labelled.
func (p *Policy) Await(ctx context.Context, kube kubernetes.Interface, namespace string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("the policy %s is not in force in namespace %s after a minute", p.Name, namespace))
	defer cancel()
	// What just one of the two policies refuses: the API server names only the first.
	meta := metav1.ObjectMeta{GenerateName: "probe-"}
	probes := []*corev1.Secret{
		{ObjectMeta: meta, Type: ciphertext.Type},
		{ObjectMeta: meta, Data: map[string][]byte{"probe": []byte("plaintext")}},
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, probe := range probes {
			_, err := kube.CoreV1().Secrets(namespace).Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
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
