package lint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// secret is a Secret, with ciphertext or not.
type secret struct {
	object
	parsed *manifest.Secret
}

// check returns the findings of a ciphertext Secret that Read has not found.
func (s *secret) check(o Options) []Finding {
	return slices.Concat(s.checkName(), s.checkSettings(), s.checkNamespace(o), s.checkEntries(),
		s.checkVersions(o.MinVersion), s.checkKeyVersions(o.Keys), s.checkCopies(), s.checkManager(), s.checkImmutable())
}

// checkManager reports who else writes the Secret. Programs set what shows it in the
// cluster, so a file that has it is a copy from there.
func (s *secret) checkManager() []Finding {
	m := ciphertext.ManagedBy(&corev1.Secret{ObjectMeta: s.parsed.Meta})
	if !m.Reverts {
		return nil
	}
	return []Finding{s.finding(ruleManaged, s.Line, "", "is managed by %s, according to its labels, annotations or "+
		"owners: it overwrites what this file sets in the cluster: change what it reads, or remove them", m.Name)}
}

func (s *secret) checkImmutable() []Finding {
	if !s.parsed.Immutable {
		return nil
	}
	return []Finding{s.finding(ruleImmutable, s.parsed.Root.Get("immutable").Line(), "",
		"is immutable: neither the rotator nor secretmanager rewrap can change its ciphertext: remove immutable, and "+
			"delete the Secret in the cluster before you apply it again")}
}

func (s *secret) checkName() (findings []Finding) {
	switch {
	case s.Name == "" && s.parsed.Meta.GenerateName == "":
		findings = append(findings, s.finding(ruleName, s.Line, "", "metadata.name is missing"))
	case s.Name == "" && s.scope() == ciphertext.Strict:
		findings = append(findings,
			s.finding(ruleName, s.Line, "",
				"generateName gives it a new name each time, and scope strict binds its ciphertext to one name"))
	case s.Name != "" && len(validation.IsDNS1123Subdomain(s.Name)) > 0:
		findings = append(findings, s.finding(ruleName, s.Line, "", "the name is not one that Kubernetes accepts"))
	}
	if s.Namespace != "" && len(validation.IsDNS1123Label(s.Namespace)) > 0 {
		findings = append(findings, s.finding(ruleName, s.Line, "", "the namespace is not one that Kubernetes accepts"))
	}
	for _, e := range s.parsed.Entries {
		if len(validation.IsConfigMapKey(e.Name)) > 0 {
			findings = append(findings, s.finding(ruleName, e.Line, e.Name, "the name is not one that Kubernetes accepts"))
		}
	}
	return findings
}

// scope returns the scope; empty if it is invalid.
func (s *secret) scope() ciphertext.Scope { return s.parsed.Settings.Scope }

// checkSettings does not repeat invalid settings: they may be values.
func (s *secret) checkSettings() (findings []Finding) {
	key := s.parsed.Meta.Labels[ciphertext.LabelTransitKey]
	switch {
	case key == "":
		findings = append(findings, s.finding(ruleKeyLabel, s.parsed.LineOf(ciphertext.LabelTransitKey), "",
			"label %s is missing: it names the transit key, and the rotator finds the Secret by it", ciphertext.LabelTransitKey))
	case len(validation.IsValidLabelValue(key)) > 0: // stricter than a name in Vault's paths
		findings = append(findings, s.finding(ruleKeyLabel, s.parsed.LineOf(ciphertext.LabelTransitKey), "",
			"label %s is not the name of a transit key", ciphertext.LabelTransitKey))
	}
	if ciphertext.CheckPath(s.parsed.Settings.Key.Mount) != nil {
		findings = append(findings, s.finding(ruleTransitMount, s.parsed.LineOf(ciphertext.AnnotationTransitMount), "",
			"annotation %s is not the path of a transit engine", ciphertext.AnnotationTransitMount))
	}
	if s.scope() == "" {
		findings = append(findings,
			s.finding(ruleScope, s.parsed.LineOf(ciphertext.AnnotationScope), "",
				"invalid annotation %s: must be %s, %s, %s or %s",
				ciphertext.AnnotationScope,
				ciphertext.Strict, ciphertext.Namespace, ciphertext.Cluster, ciphertext.None))
	}
	return findings
}

func (s *secret) checkNamespace(o Options) []Finding {
	if cmp.Or(s.Namespace, o.Namespace) != "" || len(s.namespaces) > 0 || !s.parsed.BindsNamespace() {
		return nil
	}
	return []Finding{s.finding(ruleNamespace, s.Line, "",
		"scope %s binds its ciphertext to a namespace, and the manifest has none: set metadata.namespace, or -n",
		s.scope())}
}

func (s *secret) checkEntries() (findings []Finding) {
	size := map[string]int{} // the API server stores one of two duplicates
	inData := map[string]int{}
	for _, e := range s.parsed.Entries {
		size[e.Name] = len(e.Text)
		if e.Encoded {
			inData[e.Name] = e.Line
		} else if line, ok := inData[e.Name]; ok {
			findings = append(findings, s.finding(ruleDuplicate, e.Line, e.Name,
				"is also in data, on line %d: the API server uses this one", line))
		}
		if e.Problem != nil {
			findings = append(findings, s.problems([]manifest.Problem{*e.Problem})...)
		}
	}
	total := 0
	for _, n := range size {
		total += n
	}
	if len(s.parsed.Entries) == 0 {
		findings = append(findings, s.finding(ruleEmpty, s.Line, "", "has no entries"))
	}
	if total > ciphertext.MaxSecretSize {
		findings = append(findings,
			s.finding(ruleSize, s.Line, "",
				"its values have %d bytes, and Kubernetes accepts %d: split them over several Secrets", total,
				ciphertext.MaxSecretSize))
	}
	return findings
}

func (s *secret) checkVersions(lowest int) (findings []Finding) {
	oldest := 0
	for _, e := range s.parsed.Entries {
		version, err := ciphertext.Version(e.Text)
		if err != nil {
			continue
		}
		if oldest == 0 || version < oldest {
			oldest = version
		}
		if version < lowest {
			findings = append(findings,
				s.finding(ruleMinVersion, e.Line, e.Name,
					"has key version %d, below %d: secretmanager rewrap brings it to the newest", version, lowest))
		}
	}
	// The label is not repeated: it may be a value.
	if label, ok := s.parsed.Meta.Labels[ciphertext.LabelKeyVersion]; ok && oldest > 0 && label != fmt.Sprint(oldest) {
		findings = append(findings, s.finding(ruleVersionLabel, s.parsed.LineOf(ciphertext.LabelKeyVersion),
			"", "label %s is not the oldest version of the entries, %d: it only informs users",
			ciphertext.LabelKeyVersion, oldest))
	}
	return findings
}

// checkKeyVersions compares the entries with the key in Vault.
func (s *secret) checkKeyVersions(keys map[ciphertext.Key]KeyVersions) (findings []Finding) {
	key := s.parsed.Settings.Key
	versions, known := keys[key]
	if !known {
		return nil
	}
	for _, e := range s.parsed.Entries {
		version, err := ciphertext.Version(e.Text)
		problem := ""
		switch {
		case err != nil:
			continue
		case version > versions.Latest:
			problem = fmt.Sprintf("and the newest of %s is %d: check that this is the right Vault", key, versions.Latest)
		case version < versions.MinDecryption:
			problem = fmt.Sprintf("which has been retired: encrypt the value again, or lower min_decryption_version of %s", key)
		case version < versions.Target:
			problem = fmt.Sprintf("and the target is %d: run secretmanager rewrap", versions.Target)
		default:
			continue
		}
		findings = append(findings, s.finding(ruleKeyVersion, e.Line, e.Name, "has key version %d, %s", version, problem))
	}
	return findings
}

// checkCopies checks the manifests that tools keep in annotations: kubectl apply, kapp and others keep what they
// applied last. Files from kubectl get have them.
func (s *secret) checkCopies() (findings []Finding) {
	for _, name := range slices.Sorted(maps.Keys(s.parsed.Meta.Annotations)) {
		line := s.parsed.LineOf(name)
		bad, isCopy := plaintextEntries(s.parsed.Meta.Annotations[name])
		switch {
		case isCopy && len(bad) > 0:
			findings = append(findings, s.finding(rulePlaintextCopy, line, "",
				"annotation %s is a copy of an earlier manifest, in which %s is not ciphertext: remove the annotation, "+
					"and change a secret that others may have read", quote(name), strings.Join(bad[:min(len(bad), 10)], ", ")))
		case !isCopy && name == ciphertext.AnnotationLastApplied:
			findings = append(findings, s.finding(rulePlaintextCopy, line, "",
				"annotation %s is not the manifest of a Secret, as kubectl apply writes it: remove the annotation", quote(name)))
		}
	}
	return findings
}

// plaintextEntries returns the names of the entries that are not ciphertext, if the text is the manifest of a Secret,
// in JSON or YAML.
func plaintextEntries(text string) (names []string, isManifest bool) {
	var copied struct {
		Kind       string            `json:"kind"`
		Data       map[string][]byte `json:"data"`
		StringData map[string]string `json:"stringData"`
	}
	if yaml.Unmarshal([]byte(text), &copied) != nil {
		return nil, false
	}
	partial := copied.Kind == "" && (copied.Data != nil || copied.StringData != nil)
	if copied.Kind != "Secret" && !partial {
		return nil, false
	}
	for name, value := range copied.Data {
		if _, err := ciphertext.Version(value); err != nil {
			names = append(names, quote(name))
		}
	}
	for name, value := range copied.StringData {
		if _, err := ciphertext.Version([]byte(value)); err != nil {
			names = append(names, quote(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}
