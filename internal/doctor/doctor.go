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
	"github.com/secretmanager-io/secretmanager/transit"
)

// State is the outcome of a check.
type State string

// The outcomes of a check.
const (
	OK      State = "ok"
	Broken  State = "broken"
	Unknown State = "unknown" // the outcome cannot be determined, or depends on a check that is broken
)

// Check is the result of a check. Its JSON is stable: fields and names of checks are added and
// never renamed.
type Check struct {
	Name string `json:"check"`
	// Subject is "pod NAMESPACE/NAME" or "class NAMESPACE/NAME"; empty for the installation.
	Subject   string   `json:"subject,omitempty"`
	State     State    `json:"state"`
	Detail    string   `json:"detail"`
	DependsOn string   `json:"dependsOn,omitempty"` // the broken check that makes this one unknown
	Warnings  []string `json:"warnings,omitempty"`  // what works, but should be changed
	Fixes     []string `json:"fix,omitempty"`       // commands, to be run in this order
	Advice    string   `json:"advice,omitempty"`    // what to know, or what no command can do
}

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
	w := &run{Options: o, causes: map[string]string{}}
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
	vault    vaultInfo
	target   targetInfo
}

// finding is the result of a check.
type finding struct {
	state    State
	detail   string
	warnings []string
	fix      []string
	advice   string
	cause    string // the check that makes this one unknown
	blocks   bool   // an unknown result blocks the checks that need this one
}

func (f finding) withFix(commands ...string) finding {
	f.fix = append(f.fix, commands...)
	return f
}

func (f finding) withAdvice(text string) finding {
	f.advice = text
	return f
}

func (f finding) withWarning(text string) finding {
	f.warnings = append(f.warnings, text)
	return f
}

// check runs a check, unless one that it needs is broken. The needs are names of checks of the
// installation or of the same subject.
func (w *run) check(ctx context.Context, subject, name string, needs []string,
	check func(context.Context) finding) State {
	result := Check{Name: name, Subject: subject}
	for _, need := range needs {
		cause, blocked := w.causes[subject+"/"+need]
		if !blocked {
			cause, blocked = w.causes["/"+need]
		}
		if blocked {
			result.State, result.DependsOn, result.Detail = Unknown, cause, "depends on "+cause
			w.report(result, cause)
			return result.State
		}
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	if w.Slow != nil {
		timer := time.AfterFunc(slowAfter, func() { w.Slow(name) })
		defer timer.Stop()
	}
	f := check(ctx)
	result.State, result.Detail, result.DependsOn = f.state, f.detail, f.cause
	result.Warnings, result.Fixes, result.Advice = f.warnings, f.fix, f.advice
	cause := f.cause
	if f.state == Broken || f.blocks {
		cause = name
	}
	w.report(result, cause)
	return result.State
}

// report records a result, and its cause if it blocks others.
func (w *run) report(c Check, cause string) {
	// The texts quote the API server, Vault and authors of classes.
	c.Detail, c.Advice = display.Line(c.Detail), display.Line(c.Advice)
	for _, list := range [][]string{c.Warnings, c.Fixes} {
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
