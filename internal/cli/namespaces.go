package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Namespaces returns the namespaces of -n, which are separated by commas, or the one that kubectl would use. With -A
// it returns none, which means all.
func (p *Factory) Namespaces(all bool) ([]string, error) {
	if all {
		return nil, nil
	}
	if flag := *p.KubeFlags.Namespace; flag != "" {
		namespaces := strings.Split(flag, ",")
		slices.Sort(namespaces)
		return slices.Compact(namespaces), nil
	}
	namespace, err := p.ClusterNamespace()
	if err != nil {
		return nil, err
	}
	return []string{namespace}, nil
}

// ValidateNamespaces reports what is wrong with -n, of a verb that takes a list, and -A.
func (p *Factory) ValidateNamespaces(all bool) error {
	flag := *p.KubeFlags.Namespace
	if flag == "" {
		return nil
	}
	if all {
		return errors.New("-n cannot be combined with -A")
	}
	for namespace := range strings.SplitSeq(flag, ",") {
		if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
			return display.Errorf("invalid -n %q: namespace %q: %s", flag, namespace, problems[0])
		}
	}
	return nil
}

// oneNamespace reports a list in -n to a verb that works in one namespace.
func (p *Factory) oneNamespace() error {
	if flag := *p.KubeFlags.Namespace; strings.Contains(flag, ",") {
		return Usagef("invalid -n %q: this command takes one namespace, not a list", flag)
	}
	return nil
}

// CheckNamespaces returns an error for each namespace that does not exist. It accepts one that the user may not read.
func (p *Factory) CheckNamespaces(ctx context.Context, kube kubernetes.Interface, namespaces []string) error {
	var errs []error
	for _, namespace := range namespaces {
		_, err := kube.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			errs = append(errs, display.Errorf("namespace %s does not exist in %s", namespace, p.Cluster()))
		case err != nil && !apierrors.IsForbidden(err):
			errs = append(errs, display.Errorf("reading namespace %s: %w", namespace, err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return WithHint(errors.Join(errs...),
		"check the spelling of -n, and the cluster: kubectl config get-contexts lists the contexts")
}

// ErrNothingFound says that there was nothing to check, and where the command looked.
func (p *Factory) ErrNothingFound(namespaces []string, selector string) error {
	return WithHint(display.Errorf("no ciphertext Secrets found %s", p.Where(namespaces, selector)),
		"nothing was checked: -n names other namespaces, and -A selects all")
}

// Where describes where a command looked.
func (p *Factory) Where(namespaces []string, selector string) string {
	where := "in all namespaces"
	switch len(namespaces) {
	case 0:
	case 1:
		where = "in namespace " + namespaces[0]
	default:
		where = "in namespaces " + strings.Join(namespaces, ", ")
	}
	if selector != "" {
		where += fmt.Sprintf(" with labels %q", selector)
	}
	return where + " of " + p.Cluster()
}

// Cluster names the cluster by its address, and by the context of the kubeconfig.
func (p *Factory) Cluster() string {
	loader := p.KubeFlags.ToRawKubeConfigLoader()
	address := "the cluster"
	if config, err := loader.ClientConfig(); err == nil {
		address = config.Host
	}
	name := *p.KubeFlags.Context
	if raw, err := loader.RawConfig(); err == nil && name == "" {
		name = raw.CurrentContext
	}
	if name == "" {
		return address
	}
	return fmt.Sprintf("%s (context %s)", address, name)
}
