package admission

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// The rotator of manifests/rotator: its user, and the name of its policy and its binding.
const (
	RotatorUser   = "system:serviceaccount:secretmanager-system:secretmanager-rotator"
	RotatorPolicy = "secretmanager-rotator"
)

// InstallRotator applies manifests/rotator, with rights in all namespaces, as the documentation says.
func InstallRotator(ctx context.Context, kubeconfig string) error {
	kubectl, err := programs.Path(ctx, "kubectl")
	if err != nil {
		return err
	}
	root, err := programs.Root()
	if err != nil {
		return err
	}
	for _, file := range [][2]string{{"-f", "namespace.yaml"}, {"-k", "rotator"}, {"-k", "rotator/cluster"}} {
		cmd := exec.CommandContext(ctx, kubectl, "--kubeconfig="+kubeconfig, "apply", "--server-side",
			file[0], filepath.Join(root, "manifests", file[1]))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("applying manifests/%s: %w\n%s", file[1], err, out)
		}
	}
	return nil
}

// AwaitRotatorPolicy waits until the API server enforces the rotator's policy, or until it no longer does. That takes
// some time after a change. The client is the rotator's, and the Secret one that the policy denies it to change.
func AwaitRotatorPolicy(ctx context.Context, rotator kubernetes.Interface, name types.NamespacedName,
	enforced bool) error {
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true,
		func(ctx context.Context) (bool, error) {
			_, err := rotator.CoreV1().Secrets(name.Namespace).Patch(ctx, name.Name, types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"probe":"true"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			switch {
			case err != nil && !apierrors.IsForbidden(err):
				return false, err
			case enforced:
				return DeniedByRotatorPolicy(err), nil
			default:
				return err == nil, nil
			}
		})
	if err != nil {
		return fmt.Errorf("waiting until the rotator's policy is enforced (%v): %w", enforced, err)
	}
	return nil
}

// DeniedByRotatorPolicy reports whether the rotator's policy denied a request, and its evaluation did not fail.
func DeniedByRotatorPolicy(err error) bool {
	return apierrors.IsForbidden(err) && !strings.Contains(err.Error(), "resulted in error") &&
		strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+RotatorPolicy+"'")
}
