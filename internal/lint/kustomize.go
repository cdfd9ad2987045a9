package lint

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// kustomization has the fields of a kustomization that determine namespace and name of a Secret.
type kustomization struct {
	object
	dir       string
	resources []string // files and directories
	namespace string
	renames   map[string]int // namePrefix and nameSuffix, with their lines
}

func (f *File) readKustomization(o *manifest.Object) {
	k := &kustomization{dir: filepath.Dir(f.name), renames: map[string]int{},
		object: object{f, &manifest.Object{Kind: "Kustomization", Name: cmp.Or(o.Name, filepath.Base(f.name)), Line: o.Line}}}
	k.namespace, _ = o.Root.Get("namespace").Text()
	for _, field := range []string{"namePrefix", "nameSuffix"} {
		if v, _ := o.Root.Get(field).Text(); v != "" {
			k.renames[field] = o.Root.Get(field).Line()
		}
	}
	for _, field := range []string{"resources", "bases", "components"} {
		for _, r := range o.Root.Get(field).List() {
			if path, _ := r.Text(); path != "" {
				k.resources = append(k.resources, filepath.Join(k.dir, path))
			}
		}
	}
	f.kustomizations = append(f.kustomizations, k)
	for _, g := range o.Root.Get("secretGenerator").List() {
		f.findings = append(f.findings, k.checkGenerator(g, o.Root.Get("generatorOptions"))...)
	}
}

// checkGenerator checks an item of secretGenerator.
func (k *kustomization) checkGenerator(generator, general manifest.Value) []Finding {
	scope := ciphertext.Strict
	ours := false
	noHash := false // the name has no hash of the content
	secretType, _ := generator.Get("type").Text()
	for _, options := range []manifest.Value{general, generator.Get("options")} {
		for _, p := range options.Get("labels").Pairs() {
			ours = ours || p.Name == ciphertext.LabelTransitKey
		}
		if v, ok := options.Get("annotations", ciphertext.AnnotationScope).Text(); ok && v != "" {
			scope, _ = ciphertext.ParseScope(v)
		}
		if v := options.Get("disableNameSuffixHash"); v.Line() > 0 {
			noHash = v.IsTrue()
		}
	}
	ours = ours || secretType == string(ciphertext.Type)
	if !ours || noHash || scope != ciphertext.Strict {
		return nil
	}
	name, _ := generator.Get("name").Text()
	return []Finding{k.finding(ruleKustomize, generator.Line(), "",
		"the secretGenerator of %s appends a hash to the name, and scope strict binds ciphertext to the name: "+
			"set disableNameSuffixHash", display.Name(name))}
}

// has reports whether a file is among the resources, directly or by another kustomization.
func (k *kustomization) has(f *File, all []*kustomization, seen map[*kustomization]bool) bool {
	seen[k] = true
	for _, r := range k.resources {
		if filepath.Clean(f.name) == r {
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
func (k *kustomization) bound(files []*File) (secrets []*secret) {
	var all []*kustomization
	for _, f := range files {
		all = append(all, f.kustomizations...)
	}
	for _, f := range files {
		if k.has(f, all, map[*kustomization]bool{}) {
			secrets = append(secrets, f.secrets...)
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
				findings = append(findings, k.finding(ruleKustomize, line, "",
					"%s renames Secret %s, whose ciphertext scope strict binds to its name: encrypt it for the new name",
					field, s.location()))
			}
		}
		others := slices.DeleteFunc(slices.Concat(s.namespaces, []string{s.Namespace}),
			func(n string) bool { return n == "" || n == k.namespace })
		if k.namespace != "" && s.parsed.BindsNamespace() && len(others) > 0 {
			findings = append(findings, k.finding(ruleKustomize, k.Line, "",
				"namespace moves Secret %s, whose ciphertext scope %s binds to one namespace, from or beside %s",
				s.location(), s.scope(), display.Name(strings.Join(others, ", "))))
		}
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	return findings
}
