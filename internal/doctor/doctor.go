// Package doctor finds out why a pod does not get its secret files. It checks the
// chain from the cluster to the plaintext: the driver, the provider, Vault, and for
// each SecretProviderClass the account, the role, the policy, the key and the Secret.
//
// Each [Check] of the chain is ok, broken or unknown. A check that rests on a broken
// one is not looked at: it is unknown and says on which, so that one fault is
// reported once. What the one who asks may not see is unknown too; no right is
// needed, and each that is there shows more.
//
// Nothing is changed, and nothing is decrypted. Two things leave a trace: with
// [Options.Login] a token of the pod's service account is made, for ten minutes, and
// logs in to Vault; and Vault is asked to decrypt a text that is no ciphertext, since
// its answer tells whether it would.
package doctor

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/client-go/kubernetes"

	classes "github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

// State is how a check is.
type State string

const (
	OK      State = "ok"
	Broken  State = "broken"
	Unknown State = "unknown" // it cannot be told, or it rests on a check that is broken
)

// Check is one check of the chain. Its JSON is a promise: fields are added and never
// renamed, and so are names of checks.
type Check struct {
	Name string `json:"check"`
	// "pod NAMESPACE/NAME" or "class NAMESPACE/NAME"; empty: the installation
	Subject   string   `json:"subject,omitempty"`
	State     State    `json:"state"`
	Detail    string   `json:"detail"`
	DependsOn string   `json:"dependsOn,omitempty"` // the broken check that keeps this one from being told
	Warnings  []string `json:"warnings,omitempty"`  // what works and should not be as it is
	Fixes     []string `json:"fix,omitempty"`       // commands, in their order
	Advice    string   `json:"advice,omitempty"`    // what no command does
}

// Options say what to look at and with what.
type Options struct {
	// Kube is the cluster; if it is nil, KubeError says why.
	Kube      kubernetes.Interface
	KubeError error
	KubeHost  string // its address, for people

	// Vault is how the one who asks reaches Vault. Without an address nothing is sent
	// to any: the author of the address in a class, or of what looks like the
	// provider, would get the credentials.
	Vault transit.Config
	// VaultNamespace and AuthMount are what the one who asks configured. Credentials
	// go to no others, except for those that the settings of the provider allow.
	VaultNamespace string
	AuthMount      string
	// ProviderNamespace is the namespace of the installation, secretmanager-system if
	// empty. What looks like the provider elsewhere may be made by anybody.
	ProviderNamespace string
	// VaultToken is the token of the one who asks; if it is empty, VaultTokenError
	// says why.
	VaultToken      string
	VaultTokenError error
	// VaultAPI makes the client for what package transit has no part in.
	VaultAPI func(transit.Config) (*api.Client, error)

	Namespace string // of pod and class
	Pod       string // empty: none
	Class     string // empty: those of the pod
	Account   string // service account of the pods, where no pod tells it
	Login     bool   // log in to Vault as the service account

	Program string             // how it is called, for commands; secretmanager if empty
	Version string             // of this program
	Found   func(Check)        // is told of each check when it is known
	Slow    func(check string) // is told of a check that takes more than two seconds
	Now     func() time.Time   // time.Now if nil
	Timeout time.Duration      // for a check; four seconds if zero
}

// slowAfter is when somebody who waits wants to know what for.
const slowAfter = 2 * time.Second

// Run runs the checks and returns them in their order.
func Run(ctx context.Context, o Options) []Check {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.ProviderNamespace = cmp.Or(o.ProviderNamespace, systemNamespace)
	o.AuthMount = strings.Trim(o.AuthMount, "/")
	if o.Timeout == 0 {
		o.Timeout = 4 * time.Second
	}
	w := &run{Options: o, broken: map[string]string{}}
	w.provider.settings = classes.Settings{
		AuthMount: cmp.Or(o.AuthMount, classes.DefaultAuthMount), Audience: classes.DefaultAudience,
		VaultNamespace: o.VaultNamespace,
	}
	w.installation(ctx)
	if o.Pod != "" || o.Class != "" {
		w.subjects(ctx)
	}
	return w.checks
}

// run is one run of the checks: their results, and what later checks need of them.
type run struct {
	Options
	checks []Check
	broken map[string]string // by check that is not ok and blocks others: which one is at fault

	cluster  clusterSide
	provider providerSide
	vault    vaultSide
	subject  subjectSide
}

// finding is the result of a check.
type finding struct {
	state    State
	detail   string
	warnings []string
	fix      []string
	advice   string
	cause    string // the check that makes this one unknown
	blocks   bool   // unknown, and so are the checks that need it
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

// check runs a check, unless one that it needs is broken. Needs are names of checks of
// the installation, or of the same subject.
func (w *run) check(ctx context.Context, of, name string, needs []string, check func(context.Context) finding) State {
	l := Check{Name: name, Subject: of}
	for _, need := range needs {
		fault, blocked := w.broken[of+"/"+need]
		if !blocked {
			fault, blocked = w.broken["/"+need]
		}
		if blocked {
			l.State, l.DependsOn, l.Detail = Unknown, fault, "depends on "+fault
			w.found(l, fault)
			return l.State
		}
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	if w.Slow != nil {
		timer := time.AfterFunc(slowAfter, func() { w.Slow(name) })
		defer timer.Stop()
	}
	f := check(ctx)
	l.State, l.Detail, l.DependsOn, l.Warnings, l.Fixes, l.Advice = f.state, f.detail, f.cause, f.warnings, f.fix, f.advice
	fault := f.cause
	if f.state == Broken || f.blocks {
		fault = name
	}
	w.found(l, fault)
	return l.State
}

func (w *run) found(l Check, fault string) {
	// Words of others may hold what a terminal would take for commands.
	l.Detail, l.Advice = display.Line(l.Detail), display.Line(l.Advice)
	for _, list := range [][]string{l.Warnings, l.Fixes} {
		for i := range list {
			list[i] = display.Line(list[i])
		}
	}
	w.checks = append(w.checks, l)
	if fault != "" {
		w.broken[l.Subject+"/"+l.Name] = fault
	}
	if w.Found != nil {
		w.Found(l)
	}
}
