// Package class parses and validates the parameters of a SecretProviderClass: the Vault role, the ciphertext Secret,
// the transit key, and the files of the volume.
//
// The provider, doctor, lint and the mount command share it. It reports all problems of a class at once, each with the
// path of its field, such as objects[2].filePermission. An error never contains a value, which may be a misplaced
// secret. Limits are checked before a text is parsed.
package class

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/vaultaddr"
)

// Provider is the value of spec.provider in a class for this provider.
const Provider = "secretmanager"

// Attributes that the kubelet and the driver add to the parameters.
const (
	KubeletPrefix         = "csi.storage.k8s.io/"
	AttributePodNamespace = KubeletPrefix + "pod.namespace"
	AttributePodName      = KubeletPrefix + "pod.name"
	AttributePodUID       = KubeletPrefix + "pod.uid"
	AttributeAccount      = KubeletPrefix + "serviceAccount.name"
	AttributeTokens       = KubeletPrefix + "serviceAccount.tokens"
	AttributeEphemeral    = KubeletPrefix + "ephemeral"
	AttributeClass        = "secretProviderClass"
	AttributeProvider     = "providerName"
)

// Defaults of the provider.
const (
	DefaultAuthMount = "kubernetes"
	DefaultAudience  = "vault"
)

// MaxParameter bounds each parameter except objects, in bytes.
const MaxParameter = 4 << 10

// Class is the parsed parameters, with defaults for those that are not set.
type Class struct {
	Role           string
	Secret         string // name of the ciphertext Secret
	Key            ciphertext.Key
	Scope          ciphertext.Scope
	Objects        []Object // nil: a file for each entry, with its name
	AuthMount      string
	Audience       string
	VaultNamespace string
	VaultAddress   string // as in the settings, if it is an address of their cluster
}

// Entries returns the entry of each object, in order; nil means all entries of the Secret.
func (c *Class) Entries() (entries []string) {
	for _, o := range c.Objects {
		entries = append(entries, o.Entry)
	}
	return entries
}

// Settings are the provider's defaults for a class, and the values that a class may name instead. The provider sends
// the pod's token to any allowed address and auth mount.
type Settings struct {
	VaultAddress      string // or all addresses of a cluster, separated by commas
	AllowedAddresses  []string
	VaultNamespace    string
	AllowedNamespaces []string
	AuthMount         string // DefaultAuthMount if empty
	AllowedAuthMounts []string
	Audience          string
}

// Normalize returns the settings with addresses and paths in the same form as in a parsed class.
func (s Settings) Normalize() Settings {
	each := func(list []string, normalize func(string) string) []string {
		normalized := make([]string, len(list))
		for i, item := range list {
			normalized[i] = normalize(item)
		}
		return normalized
	}
	path := func(p string) string { return strings.Trim(p, "/") }
	s.VaultAddress = vaultaddr.NormalizeList(s.VaultAddress)
	s.AllowedAddresses = each(s.AllowedAddresses, vaultaddr.Normalize)
	s.VaultNamespace, s.AllowedNamespaces = path(s.VaultNamespace), each(s.AllowedNamespaces, path)
	s.AuthMount = cmp.Or(path(s.AuthMount), DefaultAuthMount)
	s.AllowedAuthMounts = each(s.AllowedAuthMounts, path)
	return s
}

// parameter is a parameter of a class.
type parameter struct {
	name     string
	required bool
	set      func(p *parser, path *field.Path, value string)
}

// parameters are all parameters. docs/reference/parameters.md lists them too.
var parameters = []parameter{
	{"roleName", true, func(p *parser, path *field.Path, v string) {
		p.class.Role = v
		p.check(path, ciphertext.CheckName(v), nameDetail)
	}},
	{"secretName", true, func(p *parser, path *field.Path, v string) {
		p.class.Secret = v
		if len(validation.IsDNS1123Subdomain(v)) > 0 {
			p.invalid(path, "must be the name of a Secret")
		}
	}},
	{"transitKey", true, func(p *parser, path *field.Path, v string) {
		p.class.Key.Name = v
		p.check(path, ciphertext.CheckName(v), nameDetail)
	}},
	{"transitMount", false, func(p *parser, path *field.Path, v string) {
		p.class.Key.Mount = v
		p.check(path, ciphertext.CheckPath(v), pathDetail)
	}},
	{"scope", false, func(p *parser, path *field.Path, v string) {
		var err error
		if p.class.Scope, err = ciphertext.ParseScope(v); err != nil {
			p.add(field.NotSupported(path, omitted, ciphertext.Scopes))
		}
	}},
	{"objects", false, func(p *parser, path *field.Path, v string) { p.parseObjects(path, v) }},
	{"vaultAuthMountPath", false, func(p *parser, path *field.Path, v string) {
		p.class.AuthMount = p.parsePath(path, v, p.settings.AuthMount, p.settings.AllowedAuthMounts,
			"vault-allowed-auth-mounts")
	}},
	{"audience", false, func(p *parser, _ *field.Path, v string) { p.class.Audience = v }},
	{"vaultNamespace", false, func(p *parser, path *field.Path, v string) {
		p.class.VaultNamespace = p.parsePath(path, v, p.settings.VaultNamespace, p.settings.AllowedNamespaces,
			"vault-allowed-namespaces")
	}},
	{"vaultAddress", false, func(p *parser, path *field.Path, v string) {
		p.class.VaultAddress = vaultaddr.Normalize(v)
		switch {
		case !p.restricted:
			p.check(path, vaultaddr.Check(p.class.VaultAddress),
				"must be an address such as https://HOST:8200 (an IPv6 address in brackets)")
		case slices.Contains(vaultaddr.Split(p.settings.VaultAddress), p.class.VaultAddress):
			p.class.VaultAddress = p.settings.VaultAddress // one address of the cluster names the cluster
		default:
			p.allow(path, p.class.VaultAddress, p.settings.VaultAddress, p.settings.AllowedAddresses, "vault-allowed-addresses")
		}
	}},
}

const (
	nameDetail = "must be one part of a Vault path: up to 512 printable ASCII characters without slashes, " +
		"quotes, ?, # and %"
	pathDetail = "must be a Vault path: printable ASCII without empty parts, parts of dots, quotes, ?, # and %"
)

// Parse parses the parameters of a class, merged with the volumeAttributes of a pod, which override them. It ignores
// attributes of the kubelet. If settings is not nil, it also applies their defaults and refuses values that they do not
// allow. The target is the directory of the volume, which counts towards the length of a path; it may be empty.
func Parse(attributes map[string]string, settings *Settings, target string) (Class, field.ErrorList) {
	p := &parser{target: target, class: Class{Key: ciphertext.Key{Mount: ciphertext.DefaultTransitMount},
		Scope: ciphertext.Strict}}
	if settings != nil {
		s := settings.Normalize()
		p.settings, p.restricted = s, true
		p.class.AuthMount, p.class.Audience = s.AuthMount, s.Audience
		p.class.VaultNamespace, p.class.VaultAddress = s.VaultNamespace, s.VaultAddress
	}
	for _, param := range parameters {
		value, path := attributes[param.name], field.NewPath(param.name)
		switch {
		case strings.TrimSpace(value) == "": // as a template leaves it for a value that is not set
			if param.required {
				p.add(field.Required(path, ""))
			}
		case len(value) > MaxParameter && param.name != objectsName:
			p.add(field.TooLong(path, omitted, MaxParameter))
		default:
			param.set(p, path, value)
		}
	}
	p.checkUnknown(attributes)
	return p.class, p.errs
}

// parser collects the class and its first [failure.MaxProblems] problems.
type parser struct {
	settings   Settings
	restricted bool // to what the settings allow
	target     string
	class      Class
	errs       field.ErrorList
}

// omitted replaces the value in every error.
var omitted = field.OmitValueType{}

func (p *parser) full() bool { return len(p.errs) >= failure.MaxProblems }

func (p *parser) add(err *field.Error) {
	if !p.full() {
		p.errs = append(p.errs, err)
	}
}

func (p *parser) invalid(path *field.Path, detail string) {
	p.add(field.Invalid(path, omitted, detail))
}

// check adds a problem if err is not nil, and reports whether err is nil. It drops the error, which may contain
// the value.
func (p *parser) check(path *field.Path, err error, detail string) bool {
	if err != nil {
		p.invalid(path, detail)
	}
	return err == nil
}

// parsePath returns a Vault path without the trailing slash that Vault's tools show.
func (p *parser) parsePath(path *field.Path, value, configured string, allowed []string, flag string) string {
	value = strings.TrimSuffix(value, "/")
	if p.check(path, ciphertext.CheckPath(value), pathDetail) && p.restricted {
		p.allow(path, value, configured, allowed, flag)
	}
	return value
}

// allow refuses a value that the operator neither configured nor allowed.
func (p *parser) allow(path *field.Path, value, configured string, allowed []string, flag string) {
	if value != configured && !slices.Contains(allowed, value) {
		p.add(field.Forbidden(path, "the provider does not allow this value: see its flag --"+flag))
	}
}

// checkUnknown refuses unknown parameters, and suggests the most similar name.
func (p *parser) checkUnknown(attributes map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		if p.full() {
			return
		}
		if name == AttributeClass || name == AttributeProvider || strings.HasPrefix(name, KubeletPrefix) ||
			slices.ContainsFunc(parameters, func(p parameter) bool { return p.name == name }) {
			continue
		}
		path := field.NewPath(display.Quote(name))
		switch {
		case strings.HasPrefix(name, "vaultSkipTLS"), strings.HasPrefix(name, "vaultCA"), strings.HasPrefix(name, "vaultTLS"):
			p.add(field.Forbidden(path, "unknown parameter; the operator configures TLS with the flags of the provider"))
		default:
			p.add(field.Forbidden(path, "unknown parameter; did you mean "+nearest(name)+"?"))
		}
	}
}

func nearest(name string) string {
	name = strings.ToLower(display.Clip(name, 64)) // the time to compute a distance grows with the length
	distance := func(p parameter) int { return levenshtein.ComputeDistance(name, strings.ToLower(p.name)) }
	return slices.MinFunc(parameters, func(a, b parameter) int { return distance(a) - distance(b) }).name
}

// Parameters returns the names of all parameters.
func Parameters() []string {
	names := make([]string, len(parameters))
	for i, p := range parameters {
		names[i] = p.name
	}
	return names
}
