// Package doctor finds out why a pod does not get its secret files. It walks the
// chain from the cluster to the plaintext: the driver, the provider, Vault, and for
// each SecretProviderClass the account, the role, the policy, the key and the Secret.
//
// Each [Link] of the chain is ok, broken or unknown. A link that rests on a broken
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

// State is how a link is.
type State string

const (
	OK      State = "ok"
	Broken  State = "broken"
	Unknown State = "unknown" // it cannot be told, or it rests on a link that is broken
)

// Link is one link of the chain. Its JSON is a promise: fields are added and never
// renamed, and so are names of links.
type Link struct {
	Name      string   `json:"link"`
	Of        string   `json:"of,omitempty"` // "pod NAMESPACE/NAME" or "class NAMESPACE/NAME"; empty: the installation
	State     State    `json:"state"`
	Detail    string   `json:"detail"`
	DependsOn string   `json:"dependsOn,omitempty"` // the broken link that keeps this one from being told
	Warnings  []string `json:"warnings,omitempty"`  // what works and should not be as it is
	Mend      []string `json:"mend,omitempty"`      // commands, in their order
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

	Program  string            // how it is called, for commands; secretmanager if empty
	Version  string            // of this program
	Found    func(Link)        // is told of each link when it is known
	Slow     func(link string) // is told of a link that takes more than two seconds
	Now      func() time.Time  // time.Now if nil
	Patience time.Duration     // for a link; four seconds if zero
}

// slowAfter is when somebody who waits wants to know what for.
const slowAfter = 2 * time.Second

// Run walks the chain and returns its links, in their order.
func Run(ctx context.Context, o Options) []Link {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.ProviderNamespace = cmp.Or(o.ProviderNamespace, systemNamespace)
	o.AuthMount = strings.Trim(o.AuthMount, "/")
	if o.Patience == 0 {
		o.Patience = 4 * time.Second
	}
	w := &walk{Options: o, broken: map[string]string{}}
	w.provider.settings = classes.Settings{
		AuthMount: cmp.Or(o.AuthMount, classes.DefaultAuthMount), Audience: classes.DefaultAudience, VaultNamespace: o.VaultNamespace,
	}
	w.installation(ctx)
	if o.Pod != "" || o.Class != "" {
		w.subjects(ctx)
	}
	return w.links
}

// walk is a chain being walked: what was found, and what later links need of it.
type walk struct {
	Options
	links  []Link
	broken map[string]string // by link that is not ok and bars others: which one is at fault

	cluster  clusterSide
	provider providerSide
	vault    vaultSide
	subject  subjectSide
}

// finding is what looking at a link gave.
type finding struct {
	state    State
	detail   string
	warnings []string
	mend     []string
	advice   string
	fault    string // the link that is to blame for this one being unknown
	bars     bool   // unknown, and so is all that rests on it
}

func (f finding) mending(commands ...string) finding {
	f.mend = append(f.mend, commands...)
	return f
}

func (f finding) advising(text string) finding {
	f.advice = text
	return f
}

func (f finding) warning(text string) finding {
	f.warnings = append(f.warnings, text)
	return f
}

// look looks at a link, unless one that it needs is broken. Needs are names of
// links of the installation, or of the same subject.
func (w *walk) look(ctx context.Context, of, name string, needs []string, check func(context.Context) finding) State {
	l := Link{Name: name, Of: of}
	for _, need := range needs {
		fault, barred := w.broken[of+"/"+need]
		if !barred {
			fault, barred = w.broken["/"+need]
		}
		if barred {
			l.State, l.DependsOn, l.Detail = Unknown, fault, "depends on "+fault
			w.found(l, fault)
			return l.State
		}
	}
	ctx, cancel := context.WithTimeout(ctx, w.Patience)
	defer cancel()
	if w.Slow != nil {
		timer := time.AfterFunc(slowAfter, func() { w.Slow(name) })
		defer timer.Stop()
	}
	f := check(ctx)
	l.State, l.Detail, l.DependsOn, l.Warnings, l.Mend, l.Advice = f.state, f.detail, f.fault, f.warnings, f.mend, f.advice
	fault := f.fault
	if f.state == Broken || f.bars {
		fault = name
	}
	w.found(l, fault)
	return l.State
}

func (w *walk) found(l Link, fault string) {
	// Words of others may hold what a terminal would take for commands.
	l.Detail, l.Advice = display.Line(l.Detail), display.Line(l.Advice)
	for _, list := range [][]string{l.Warnings, l.Mend} {
		for i := range list {
			list[i] = display.Line(list[i])
		}
	}
	w.links = append(w.links, l)
	if fault != "" {
		w.broken[l.Of+"/"+l.Name] = fault
	}
	if w.Found != nil {
		w.Found(l)
	}
}
