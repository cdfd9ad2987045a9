package main

import (
	"context"
	"fmt"
	"path/filepath"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/test/admission"
)

const (
	admissionPairs   = 7
	admissionSecrets = 2000
)

// admissionPair has the durations of three rotations in seconds: with the rotator's policy, and twice without it.
type admissionPair struct {
	With    float64 `json:"withSeconds"`
	Without float64 `json:"withoutSeconds"`
	Again   float64 `json:"againWithoutSeconds"`
}

func (p admissionPair) ratio() float64 { return ratio(p.With, p.Without) }
func (p admissionPair) noise() float64 { return ratio(p.Again, p.Without) }

// admissionPolicy measures rotations by the rotator of manifests/rotator, with and without its policy.
func (b *rotationBench) admissionPolicy(ctx context.Context) (pairs []admissionPair, err error) {
	if err := b.grow(ctx, admissionSecrets); err != nil {
		return nil, err
	}
	p, err := b.newPolicySwitch(ctx)
	if err != nil {
		return nil, err
	}
	for n := range admissionPairs {
		var pair admissionPair
		rotations := []struct {
			policy bool
			took   *float64
		}{{false, &pair.Without}, {true, &pair.With}, {false, &pair.Again}}
		for i := range rotations {
			rotation := rotations[(n+i)%len(rotations)] // each is first, second and last
			if err := p.set(ctx, rotation.policy); err != nil {
				return nil, err
			}
			if _, err := b.vault.Write(ctx, "transit/keys/"+rotationKey+"/rotate", nil); err != nil {
				return nil, err
			}
			report, took, _, err := b.run(ctx, "--rotate=never", "--kubeconfig="+p.kubeconfig)
			if err != nil {
				return nil, err
			}
			if len(report.Keys) != 1 || report.Keys[0].Rewrapped != b.secrets {
				return nil, fmt.Errorf("the rotator did not rewrap %d entries: %+v", b.secrets, report.Keys)
			}
			*rotation.took = took.Seconds()
		}
		pairs = append(pairs, pair)
		b.say("the rotator's policy, pair %d of %d: %.2f s with, %.2f s and %.2f s without", n+1, admissionPairs,
			pair.With, pair.Without, pair.Again)
	}
	return pairs, p.set(ctx, false)
}

// policySwitch enforces the rotator's policy, or not, by a label of the namespace that its binding selects. The
// binding stays: an API server becomes slower each time one is created again.
type policySwitch struct {
	kube, rotator kubernetes.Interface
	kubeconfig    string // of the rotator
	probe         types.NamespacedName
}

const enforcedLabel = "bench/policy"

func (b *rotationBench) newPolicySwitch(ctx context.Context) (*policySwitch, error) {
	if err := admission.InstallRotator(ctx, b.api.Kubeconfig); err != nil {
		return nil, err
	}
	p := &policySwitch{kubeconfig: filepath.Join(b.dir, "rotator.kubeconfig"),
		probe: types.NamespacedName{Namespace: rotationKey, Name: "probe"}}
	config := rest.CopyConfig(b.api.Config)
	var err error
	if p.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	config.Impersonate = rest.ImpersonationConfig{UserName: admission.RotatorUser}
	if p.rotator, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	file, err := clientcmd.LoadFromFile(b.api.Kubeconfig)
	if err != nil {
		return nil, err
	}
	for _, user := range file.AuthInfos {
		user.Impersonate = admission.RotatorUser
	}
	if err := clientcmd.WriteToFile(*file, p.kubeconfig); err != nil {
		return nil, err
	}
	if err := b.post(ctx, rotationNS+"/secrets", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: p.probe.Name}},
		nil); err != nil {
		return nil, err
	}
	bindings := p.kube.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	binding, err := bindings.Get(ctx, admission.RotatorPolicy, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	binding.Spec.MatchResources = &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{enforcedLabel: "on"}},
	}
	_, err = bindings.Update(ctx, binding, metav1.UpdateOptions{})
	return p, err
}

// set sets the label of the namespace, and waits until that takes effect.
func (p *policySwitch) set(ctx context.Context, enforced bool) error {
	value := map[bool]string{true: "on", false: "off"}[enforced]
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, enforcedLabel, value)
	namespaces := p.kube.CoreV1().Namespaces()
	_, err := namespaces.Patch(ctx, rotationKey, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	return admission.AwaitRotatorPolicy(ctx, p.rotator, p.probe, enforced)
}

// admissionBudget evaluates the median pair.
func admissionBudget(pairs []admissionPair) budget {
	middle := middlePair(pairs, admissionPair.ratio)
	return budget{
		Name: fmt.Sprintf("rotation with the rotator's policy, %d pairs", len(pairs)), Unit: "s", Limit: 1.15,
		Measured: middle.With, Floor: middle.Without,
	}.evaluated()
}
