// Package doctor finds the reason why a pod does not get its secret files. It checks everything
// from the cluster to the plaintext: the driver, the provider, Vault, and for each
// SecretProviderClass the service account, the role, the policy, the key and the Secret.
//
// Each [Check] is ok, broken or unknown. A check that depends on a broken one is skipped: it is unknown and names that
// one, so that each fault is reported once. Checks for which the user lacks a right are unknown too. No right is
// required; each right enables more checks.
//
// Nothing is changed, and nothing is decrypted. Two things leave traces in audit logs: with [Options.Login] a token of
// the pod's service account, valid for ten minutes, is requested and used to log in to Vault; and Vault is asked to
// decrypt invalid ciphertext, because its response shows whether the policy allows it.
package doctor

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/doctor/result"
	"github.com/secretmanager-io/secretmanager/internal/doctor/rotation"
	"github.com/secretmanager-io/secretmanager/transit"
)

// Options are the subject of the checks and the connections to use.
type Options struct {
	// Kube is the cluster; if it is nil, KubeError is the reason.
	Kube      kubernetes.Interface
	KubeError error
	KubeHost  string // its address, for messages

	// Vault is the user's connection to Vault. Without an address no credentials are sent:
	// an address in a class, or in what looks like the provider, may be an attacker's.
	Vault transit.Config
	// VaultNamespace and AuthMount are those of the user. Credentials are sent only to them and
	// to those that the settings of the provider allow.
	VaultNamespace string
	AuthMount      string
	// ProviderNamespace is the namespace of the installation; the default is
	// secretmanager-system. A provider in another namespace is not trusted: anyone with a
	// namespace can create one.
	ProviderNamespace string
	// VaultToken is the user's token; if it is empty, VaultTokenError is the reason.
	VaultToken      string
	VaultTokenError error
	// VaultAPI returns a client for requests that package transit does not make.
	VaultAPI func(transit.Config) (*api.Client, error)

	Namespace string // of pod and class
	Kind      string // of the workload with the name Pod, see package workload; empty: a pod
	Pod       string // empty for none
	Class     string // empty for those of the pod
	Account   string // service account of the pods, with Class
	Login     bool   // log in to Vault as the service account

	Program string             // name of this program in commands; the default is secretmanager
	Version string             // of this program
	Found   func(Check)        // is called with each result
	Slow    func(check string) // is called with the name of a check that takes more than two seconds
	Now     func() time.Time   // the default is time.Now
	Timeout time.Duration      // of each check; the default is four seconds
}

// slowAfter is the time after which Slow is called.
const slowAfter = 2 * time.Second

// Run runs the checks and returns their results in order.
func Run(ctx context.Context, o Options) []Check {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.ProviderNamespace = cmp.Or(o.ProviderNamespace, systemNamespace)
	o.AuthMount = strings.Trim(o.AuthMount, "/")
	if o.Timeout == 0 {
		o.Timeout = 4 * time.Second
	}
	w := newRun(o)
	w.provider.settings = class.Settings{
		AuthMount: cmp.Or(o.AuthMount, class.DefaultAuthMount), Audience: class.DefaultAudience,
		VaultNamespace: o.VaultNamespace,
	}
	w.checkInstallation(ctx)
	if o.Pod != "" || o.Class != "" {
		w.checkTarget(ctx)
	}
	return w.checks
}

// run has the results of the checks, and what later checks need of them.
type run struct {
	Options
	checks []Check
	causes map[string]string // the broken check, by SUBJECT/CHECK for each check that blocks others

	cluster  clusterInfo
	provider providerInfo
	rotation rotation.Chain
	vault    vaultInfo
	target   targetInfo
}

func newRun(o Options) *run {
	w := &run{Options: o, causes: map[string]string{}}
	w.rotation = rotation.Chain{Kube: o.Kube, Namespaces: []string{systemNamespace}, Program: w.program(), Now: o.Now}
	if o.ProviderNamespace != systemNamespace {
		// An installation in two namespaces.
		w.rotation.Namespaces = []string{o.ProviderNamespace, systemNamespace}
	}
	return w
}

// check runs a check, unless one that it needs is broken. The needs are names of checks of the
// installation or of the same subject.
func (w *run) check(ctx context.Context, subject, name string, needs []string,
	check func(context.Context) result.Finding) State {
	c := Check{Name: name, Subject: subject}
	for _, need := range needs {
		cause, blocked := w.causes[subject+"/"+need]
		if !blocked {
			cause, blocked = w.causes["/"+need]
		}
		if blocked {
			c.State, c.DependsOn, c.Detail = Unknown, cause, "depends on "+cause
			w.report(c, cause)
			return c.State
		}
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	if w.Slow != nil {
		timer := time.AfterFunc(slowAfter, func() { w.Slow(name) })
		defer timer.Stop()
	}
	f := check(ctx)
	c.State, c.Detail, c.DependsOn = f.State, f.Detail, f.Cause
	c.Warnings, c.Fixes, c.Advice = f.Warnings, f.Fix, f.Advice
	c.Alternatives, c.Inspect = f.Choices, f.Inspect
	cause := f.Cause
	if f.State == Broken || f.Blocks {
		cause = name
	}
	w.report(c, cause)
	return c.State
}

// report records a result, and its cause if it blocks others.
func (w *run) report(c Check, cause string) {
	// The texts quote the API server, Vault and authors of classes.
	c.Detail, c.Advice = display.Line(c.Detail), display.Line(c.Advice)
	lists := [][]string{c.Warnings, c.Fixes, c.Inspect}
	for i := range c.Alternatives {
		c.Alternatives[i].When = display.Line(c.Alternatives[i].When)
		lists = append(lists, c.Alternatives[i].Fixes)
	}
	for _, list := range lists {
		for i := range list {
			list[i] = display.Line(list[i])
		}
	}
	w.checks = append(w.checks, c)
	if cause != "" {
		w.causes[c.Subject+"/"+c.Name] = cause
	}
	if w.Found != nil {
		w.Found(c)
	}
}
