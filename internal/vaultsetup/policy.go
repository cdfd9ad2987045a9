package vaultsetup

import (
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Policy is a Vault ACL policy.
type Policy struct {
	Name  string
	Title string   // first line, a comment with the key and its users
	About []string // more comment lines
	Rules []Rule
}

// Rule grants capabilities on a path.
type Rule struct {
	Path         string
	Capabilities []string
	Parameters   []string // allowed parameters; nil: all
}

// titleLine returns the first line of the policy. It distinguishes the policy from others
// of the same name.
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

// Policies returns the policies of the key: for readers, authors and the rotator, that for
// retiring and that for patterns if the rotator needs them, and that of the person who trims if
// it is requested.
func (s Setup) Policies() []Policy {
	policies := []Policy{s.appPolicy(), s.authorPolicy(), s.rotatorPolicy()}
	if s.Retire {
		policies = append(policies, s.retirePolicy())
	}
	if s.Patterns {
		policies = append(policies, s.patternsPolicy())
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

// namespaceMetadata is the metadata of a login with the namespace of the service account.
// A kubernetes mount always sets it, a jwt mount if the role maps the claim.
const namespaceMetadata = "service_account_namespace"

// namespacedPolicy returns the policy of the apps in all namespaces that log in at the
// auth mount: Vault replaces the last part of the path by the namespace of the service
// account. The policy has the name of the transit mount alone, so that two auth mounts
// cannot share it: a namespace of the same name in another cluster has another owner.
func (s Setup) namespacedPolicy() Policy {
	about := []string{
		"For pods that read the Secrets, in every namespace: decrypts with the key that has the",
		"name of the pod's namespace, and nothing else. So " + s.Key.Mount + " must hold no other keys.",
	}
	if s.Accessor == AccessorPlaceholder {
		about = append(about, "Replace "+AccessorPlaceholder+" by the accessor of auth/"+s.AuthMount+
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

// namespaceMarker returns the policy that marks a key as that of the namespace of its
// name. In a mount that is reserved for such keys, only a setup with PerNamespace writes
// this policy, before it creates the key.
func namespaceMarker(key ciphertext.Key) Policy { return Setup{Key: key}.rotatorPolicy() }

func (s Setup) authorPolicy() Policy {
	return s.policy("author", []string{
		"For people and pipelines that write the Secrets: encrypts, and cannot decrypt.",
		"Reading the key shows whether it binds ciphertext to a location; rewrapping verifies",
		"that what was written decrypts there. \"create\" is omitted on purpose: with it, a",
		"mistyped key name would create a new key.",
	},
		Rule{Path: s.path("keys"), Capabilities: readOnly},
		Rule{Path: s.path("encrypt"), Capabilities: update},
		Rule{Path: s.path("rewrap"), Capabilities: update})
}

func (s Setup) rotatorPolicy() Policy {
	return s.policy("rotator", []string{"For the rotator: rotates the key and rewraps ciphertext; never sees plaintext."},
		Rule{Path: s.path("keys"), Capabilities: readOnly},
		Rule{Path: s.path("keys") + "/rotate", Capabilities: update},
		Rule{Path: s.path("rewrap"), Capabilities: update})
}

func (s Setup) retirePolicy() Policy {
	return s.policy("retire", []string{
		"For the rotator, with --retire: raises the oldest key version that still decrypts.",
		"Limited to these settings, since the same path can make a key exportable or deletable.",
		"The oldest version that encrypts must be raised too if it is set.",
	},
		Rule{Path: s.path("keys") + "/config", Capabilities: update,
			Parameters: []string{"min_decryption_version", "min_encryption_version"}})
}

// patternsPolicy returns the policy that all keys of the mount share.
func (s Setup) patternsPolicy() Policy {
	return Policy{
		Name:  "secretmanager-patterns-" + lower(s.Key.Mount),
		Title: "SecretManager: patterns of keys in " + s.Key.Mount,
		About: []string{
			"For the rotator, with a pattern in --transit-key: lists the names of all keys of this",
			"mount. What it may do with a key is in the policies of the key.",
		},
		Rules: []Rule{{Path: s.Key.Mount + "/keys", Capabilities: []string{"list"}}},
	}
}

func (s Setup) trimPolicy() Policy {
	return s.policy("trim", []string{
		"For the person who runs secretmanager trim, for as long as that takes: deletes retired",
		"key versions for good. No role of a service account has it, and none should.",
		"Vault trims only below the oldest version that encrypts, so that is set too.",
	},
		Rule{Path: s.path("keys"), Capabilities: readOnly},
		Rule{Path: s.path("keys") + "/config", Capabilities: update, Parameters: []string{"min_encryption_version"}},
		Rule{Path: s.path("keys") + "/trim", Capabilities: update})
}
