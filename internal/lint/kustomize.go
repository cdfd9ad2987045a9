package lint

import (
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
)

// kustomization has the fields of a kustomization that determine namespace and name of a Secret.
type kustomization struct {
	object
	dir       string
	resources []string // files and directories
	namespace string
	renames   map[string]int // namePrefix and nameSuffix, with their lines
}

func (f *File) kustomization(n *yaml.Node) {
	root := pairs(n)
	k := &kustomization{object: object{file: f, kind: "Kustomization", line: n.Line}, dir: filepath.Dir(f.Name),
		renames: map[string]int{}}
	k.name, _ = text(get(pairs(get(root, "metadata")), "name"))
	if k.name == "" {
		k.name = filepath.Base(f.Name)
	}
	k.namespace, _ = text(get(root, "namespace"))
	for _, field := range []string{"namePrefix", "nameSuffix"} {
		if v, _ := text(get(root, field)); v != "" {
			k.renames[field] = get(root, field).Line
		}
	}
	for _, field := range []string{"resources", "bases", "components"} {
		for _, r := range list(get(root, field)) {
			if path, _ := text(r); path != "" {
				k.resources = append(k.resources, filepath.Join(k.dir, path))
			}
		}
	}
	f.kustomizations = append(f.kustomizations, k)
	options := pairs(get(root, "generatorOptions"))
	for _, g := range list(get(root, "secretGenerator")) {
		f.findings = append(f.findings, k.generator(g, options)...)
	}
}

// generator checks an item of secretGenerator.
func (k *kustomization) generator(n *yaml.Node, general []pair) []Finding {
	fields := pairs(n)
	specific := pairs(get(fields, "options"))
	generated := &Secret{lines: map[string]int{}}
	generated.Meta.Annotations = map[string]string{}
	ours := false
	noHash := false // the name has no hash of the content
	secretType, _ := text(get(fields, "type"))
	for _, options := range [][]pair{general, specific} {
		for _, p := range pairs(get(options, "labels")) {
			ours = ours || p.name == ciphertext.LabelTransitKey
		}
		for _, p := range pairs(get(options, "annotations")) {
			generated.Meta.Annotations[p.name], _ = text(p.value)
		}
		if v := resolve(get(options, "disableNameSuffixHash")); v != nil {
			noHash = v.Value == "true"
		}
	}
	if ours = ours || secretType == string(ciphertext.Type); !ours || noHash || generated.scope() != ciphertext.Strict {
		return nil
	}
	name, _ := text(get(fields, "name"))
	return []Finding{k.finding(ruleKustomize, n.Line, "",
		"the secretGenerator of %s appends a hash to the name, and scope strict binds ciphertext to the name: "+
			"set disableNameSuffixHash", display.Name(name))}
}

// has reports whether a file is among the resources, directly or by another kustomization.
func (k *kustomization) has(f *File, all []*kustomization, seen map[*kustomization]bool) bool {
	seen[k] = true
	for _, r := range k.resources {
		if filepath.Clean(f.Name) == r {
			return true
		}
		for _, other := range all {
			if !seen[other] && other.dir == r && other.has(f, all, seen) {
				return true
			}
		}
	}
	return false
}

// bound returns the ciphertext Secrets that the kustomization applies.
func (k *kustomization) bound(files []*File) (secrets []*Secret) {
	var all []*kustomization
	for _, f := range files {
		all = append(all, f.kustomizations...)
	}
	for _, f := range files {
		if !k.has(f, all, map[*kustomization]bool{}) {
			continue
		}
		for _, s := range f.Secrets {
			if s.Ours {
				secrets = append(secrets, s)
			}
		}
	}
	return secrets
}

// setNamespaces sets the namespaces that kustomizations move Secrets to.
func setNamespaces(files []*File) {
	for _, f := range files {
		for _, k := range f.kustomizations {
			if k.namespace == "" {
				continue
			}
			for _, s := range k.bound(files) {
				if !slices.Contains(s.namespaces, k.namespace) {
					s.namespaces = append(s.namespaces, k.namespace)
				}
			}
		}
	}
}

func (k *kustomization) check(files []*File) (findings []Finding) {
	for _, s := range k.bound(files) {
		for field, line := range k.renames {
			if s.scope() == ciphertext.Strict {
				findings = append(findings,
					k.finding(ruleKustomize, line, "",
						"%s renames %s (%s:%d), whose ciphertext scope strict binds to its name: encrypt it for the new name",
						field, &s.object, display.Name(s.file.Name), s.line))
			}
		}
		others := slices.DeleteFunc(slices.Concat(s.namespaces, []string{s.namespace}),
			func(n string) bool { return n == "" || n == k.namespace })
		if k.namespace != "" && s.bindsNamespace() && len(others) > 0 {
			findings = append(findings,
				k.finding(ruleKustomize, k.line, "",
					"namespace moves %s (%s:%d), whose ciphertext scope %s binds to one namespace, from or beside %s",
					&s.object, display.Name(s.file.Name), s.line, s.scope(), display.Name(strings.Join(others, ", "))))
		}
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	return findings
}
