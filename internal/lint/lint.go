// Package lint checks ciphertext Secrets in manifests, and the SecretProviderClasses that mount
// them: without a cluster, without Vault, and without repeating a value.
//
// [Read] finds the objects in a manifest. [Check] checks all files together, as a class
// and its Secret, or a Secret and the kustomization that moves it, are often in different files.
// Every [Finding] names its [Rule].
//
// Findings have no part of a value, decoded or not, and no setting that is invalid, as it may be a
// value. They have names.
package lint

import (
	"cmp"
	"slices"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// Severity is Error for what does not work, and Warning for what should be changed.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Rule is one kind of problem. Names are stable: they are in the output, and users filter by them.
type Rule struct {
	Name     string
	Severity Severity
	About    string
}

var (
	ruleObject        = rule("object", Error, "the API server would not accept the object")
	ruleName          = rule("name", Error, "no name, or one that Kubernetes does not accept")
	ruleKeyLabel      = rule("key-label", Error, "the label with the transit key is missing or invalid")
	ruleTransitMount  = rule("transit-mount", Error, "the annotation with the transit mount is not a valid path")
	ruleScope         = rule("scope", Error, "the annotation with the scope is invalid")
	ruleNamespace     = rule("namespace", Error, "the scope binds to a namespace, and the manifest has none (see -n)")
	ruleEmpty         = rule("empty", Error, "a Secret without entries, or an entry without a value")
	rulePlaintext     = rule("plaintext", Error, "an entry is not ciphertext")
	ruleNotBase64     = rule("not-base64", Error, "a value under data is not base64")
	ruleDoubleBase64  = rule("double-base64", Error, "ciphertext is encoded in base64 twice")
	ruleMalformed     = rule("malformed", Error, "ciphertext is damaged")
	rulePlaintextCopy = rule("plaintext-copy", Error,
		"an annotation has a copy of an earlier manifest with entries that are not ciphertext")
	ruleForbidden = rule("forbidden-plaintext", Error,
		"an entry of any Secret is not ciphertext (see --forbid-plaintext)")
	ruleDuplicate  = rule("duplicate", Error, "an entry is duplicated")
	ruleSize       = rule("size", Error, "the values are larger than a Secret can be")
	ruleMinVersion = rule("min-version", Error, "an entry is below the required key version (see --min-version)")
	ruleUnassigned = rule(
		"unassigned",
		Error,
		"transit ciphertext that is no entry of a ciphertext Secret, such as a copy",
	)
	ruleCopied       = rule("copied", Error, "two entries have the same ciphertext, which is bound to one of them")
	ruleKeyVersion   = rule("key-version", Error, "an entry is not at a current version of its key (see --vault)")
	ruleVersionLabel = rule("version-label", Warning, "the label with the key version differs from the oldest entry's")
	ruleParameters   = rule("parameters", Error, "the provider would not accept the parameters of a class")
	ruleClassObject  = rule("class-object", Error, "a class uses an entry that its Secret does not have")
	ruleClassDiffers = rule("class-differs", Error, "key, mount or scope of a class differ from its Secret's")
	ruleClassSecret  = rule("class-secret", Warning, "the Secret of a class is not among the files")
	ruleVolumeClass  = rule("volume-class", Warning, "the class of a pod's volume is not among the files")
	ruleVolumeSecret = rule("volume-secret", Error, "nodePublishSecretRef of a volume is not the Secret of its class")
	ruleReadOnly     = rule("volume-read-only", Error, "the driver refuses a pod's volume without readOnly: true")
	ruleSubPath      = rule("sub-path", Warning, "a container mounts a file with subPath, so that it sees no update of it")
	ruleAccount      = rule("service-account", Warning, "the role of a class is for another service account, by its name")
	ruleManaged      = rule("managed", Warning, "somebody else writes the Secret, according to its metadata")
	ruleImmutable    = rule("immutable", Warning, "a Secret is immutable, so that no rotation can rewrap it")
	ruleKustomize    = rule("kustomize", Warning, "a kustomization, Flux or Argo CD renames or moves bound ciphertext")
)

var rules []Rule

func rule(name string, severity Severity, about string) Rule {
	r := Rule{name, severity, about}
	rules = append(rules, r)
	return r
}

// Rules returns all rules.
func Rules() []Rule { return slices.Clone(rules) }

// Finding is a problem. Its JSON is stable: fields are added and never renamed.
type Finding struct {
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Severity  Severity `json:"severity"`
	Rule      string   `json:"rule"`
	Kind      string   `json:"kind"` // of the object
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name,omitempty"`
	Entry     string   `json:"entry,omitempty"`
	Message   string   `json:"message"` // with the object, on one line
}

// Options are what the files do not contain.
type Options struct {
	Namespace  string // of manifests without one; empty if unknown
	MinVersion int    // lowest key version that is accepted; 0 accepts any

	// ForbidPlaintext reports all entries of Secrets that are not ciphertext, except those of PlaintextTypes.
	ForbidPlaintext bool

	// Keys has the versions of keys as Vault has them. Entries of other keys are not compared.
	Keys map[ciphertext.Key]KeyVersions
}

// KeyVersions are the versions of a key in Vault.
type KeyVersions struct {
	MinDecryption, Target, Latest int
}

// Keys returns the keys of the ciphertext Secrets, in the order of the files.
func Keys(files []*File) (keys []ciphertext.Key) {
	for _, f := range files {
		for _, s := range f.secrets {
			if key := s.parsed.Settings.Key; key.Name != "" && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// Check returns the findings, in the order of files and lines.
func Check(files []*File, o Options) []Finding {
	linkKustomizations(files)
	order := map[string]int{}
	var all []Finding
	for i, f := range files {
		order[f.name] = i
		all = append(all, f.findings...)
		for _, s := range f.secrets {
			all = append(all, s.check(o)...)
		}
		for _, s := range f.plain {
			all = append(all, s.checkForbidden(o)...)
		}
		for _, k := range f.kustomizations {
			all = append(all, k.check(o)...)
		}
		if f.patch {
			continue // its objects are incomplete
		}
		for _, c := range f.classes {
			all = append(all, c.check(files, o)...)
		}
		for _, v := range f.volumes {
			all = append(all, v.check(files, o)...)
		}
	}
	all = append(all, checkCopied(files, o)...)
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return all
}
