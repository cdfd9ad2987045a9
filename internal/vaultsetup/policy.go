package vaultsetup

import (
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Policy is a Vault ACL policy.
type Policy struct {
	Name  string
	Title string   // its first line, a comment: whose policy it is and for which key
	About []string // more comment lines
	Rules []Rule
}

// Rule allows something on one path.
type Rule struct {
	Path         string
	Capabilities []string
	Parameters   []string // the only parameters a request may have; nil: any
}

// titleLine is the first line of the policy. It tells a policy of ours, for the very
// same key, from any other policy of that name.
func (p Policy) titleLine() string { return "# " + p.Title }

// HCL returns the policy as Vault stores it.
func (p Policy) HCL() string {
	var b strings.Builder
	b.WriteString(p.titleLine() + "\n")
	for _, line := range p.About {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	for _, r := range p.Rules {
		fmt.Fprintf(&b, "\npath %q {\n  capabilities = [%s]\n", r.Path, quoted(r.Capabilities))
		if r.Parameters != nil {
			b.WriteString("  allowed_parameters = {\n")
			for _, name := range r.Parameters {
				fmt.Fprintf(&b, "    %q = []\n", name)
			}
			b.WriteString("  }\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(out, ", ")
}

// Policies returns the policies of the key: of its readers, of its authors, of
// the rotator, and, if it is to retire or to trim old versions, those for that.
func (s Setup) Policies() []Policy {
	policies := []Policy{s.appPolicy(), s.authorPolicy(), s.rotatorPolicy()}
	if s.Retire {
		policies = append(policies, s.retirePolicy())
	}
	if s.Trim {
		policies = append(policies, s.trimPolicy())
	}
	return policies
}

func (s Setup) policy(who string, about []string, rules ...Rule) Policy {
	return Policy{
		Name:  policyName(who, s.Key),
		Title: "SecretManager: " + who + " of " + s.Key.String(),
		About: about,
		Rules: rules,
	}
}

func (s Setup) path(op string) string { return s.Key.Mount + "/" + op + "/" + s.Key.Name }

var (
	readOnly = []string{"read"}
	update   = []string{"update"}
)

func (s Setup) appPolicy() Policy {
	if s.PerNamespace {
		return s.namespacedPolicy()
	}
	return s.policy("app", []string{"For pods that read the Secrets: decrypts, and nothing else."},
		Rule{Path: s.path("decrypt"), Capabilities: update})
}

// namespaceMetadata is what a login notes of the service account. A kubernetes
// mount does it by itself, a jwt mount because the role says so.
const namespaceMetadata = "service_account_namespace"

// namespacedPolicy is the app's in all namespaces that log in at the auth mount: Vault
// replaces the path's last part by the namespace of the service account. The policy
// is named after the transit mount alone, so that two auth mounts cannot share one: a
// namespace of the same name in another cluster belongs to somebody else.
func (s Setup) namespacedPolicy() Policy {
	about := []string{
		"For pods that read the Secrets, in every namespace: decrypts with the key that has the",
		"name of the pod's namespace, and nothing else. So " + s.Key.Mount + " must hold no other keys.",
	}
	if s.Accessor == AccessorPlaceholder {
		about = append(about, "Put the accessor of auth/"+s.AuthMount+" in for "+AccessorPlaceholder+
			": vault auth list shows it.")
	}
	return Policy{
		Name:  "secretmanager-apps-" + lower(s.Key.Mount),
		Title: "SecretManager: apps of the namespaces that log in at auth/" + s.AuthMount + ", for " + s.Key.Mount,
		About: about,
		Rules: []Rule{{
			Path: s.Key.Mount + "/decrypt/{{identity.entity.aliases." + s.Accessor + ".metadata." +
				namespaceMetadata + "}}",
			Capabilities: update,
		}},
	}
}

// namespaceMarker is the policy by which a key is known to have been made for the
// namespace of its name: in a mount that is reserved for such keys, only a setup with
// PerNamespace has it, and it is written before the key.
func namespaceMarker(key ciphertext.Key) Policy { return Setup{Key: key}.rotatorPolicy() }

func (s Setup) authorPolicy() Policy {
	return s.policy("author", []string{
		"For people and pipelines that write the Secrets: encrypts, and cannot read back.",
		"Reading the key tells whether it binds ciphertext to its place; rewrapping proves",
		"that what was written opens there. \"create\" is left out on purpose: with it, a",
		"mistyped key name would make a new key.",
	},
		Rule{Path: s.path("keys"), Capabilities: readOnly},
		Rule{Path: s.path("encrypt"), Capabilities: update},
		Rule{Path: s.path("rewrap"), Capabilities: update})
}

func (s Setup) rotatorPolicy() Policy {
	return s.policy("rotator", []string{"For the rotator: renews key and ciphertext, and never sees plaintext."},
		Rule{Path: s.path("keys"), Capabilities: readOnly},
		Rule{Path: s.path("keys") + "/rotate", Capabilities: update},
		Rule{Path: s.path("rewrap"), Capabilities: update})
}

func (s Setup) retirePolicy() Policy {
	return s.policy("retire", []string{
		"For the rotator, with --retire: raises the oldest key version that still decrypts.",
		"Limited to such settings, since the same path can make a key exportable or deletable.",
		"The oldest version that encrypts has to rise with it where somebody set that.",
	},
		Rule{Path: s.path("keys") + "/config", Capabilities: update,
			Parameters: []string{"min_decryption_version", "min_encryption_version"}})
}

func (s Setup) trimPolicy() Policy {
	return s.policy("trim", []string{
		"For the rotator, with --trim: deletes for good the key versions that were retired long ago.",
		"Vault trims only below the oldest version that encrypts, so that one is set too.",
	},
		Rule{Path: s.path("keys") + "/config", Capabilities: update, Parameters: []string{"min_encryption_version"}},
		Rule{Path: s.path("keys") + "/trim", Capabilities: update})
}
