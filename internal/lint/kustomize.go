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

// kustomization has the fields of a kustomization that determine namespace and name of a Secret, or those
// of an object that has a GitOps tool change these like a kustomization.
type kustomization struct {
	object
	dir       string
	resources []string // files and directories
	source    string   // the directory of the repository that the tool applies; empty for a kustomization
	namespace string
	moves     manifest.Value // the field with the namespace
	movesName string         // name of that field
	renames   map[string]int // namePrefix and nameSuffix, with their lines
}

// readFlux reads a Kustomization of Flux.
func (f *File) readFlux(o *manifest.Object) {
	spec := o.Root.Get("spec")
	f.addTool(o, spec, spec, "targetNamespace")
}

// readArgo reads an Application of Argo CD, which may have several sources.
func (f *File) readArgo(o *manifest.Object) {
	spec := o.Root.Get("spec")
	for _, source := range append(spec.Get("sources").List(), spec.Get("source")) {
		f.addTool(o, source, source.Get("kustomize"), "namespace")
	}
}

// addTool adds an object that applies the path of a source with changes.
func (f *File) addTool(o *manifest.Object, source, changes manifest.Value, namespace string) {
	k := &kustomization{object: object{f, o}, renames: map[string]int{}}
	path, _ := source.Get("path").Text()
	k.source = filepath.ToSlash(filepath.Clean("./" + path))
	k.setNamespace(changes, namespace)
	k.addRenames(changes)
	if k.namespace != "" || len(k.renames) > 0 {
		f.kustomizations = append(f.kustomizations, k)
	}
}

func (k *kustomization) setNamespace(fields manifest.Value, name string) {
	k.moves, k.movesName = fields.Get(name), name
	k.namespace, _ = k.moves.Text()
}

func (k *kustomization) addRenames(fields manifest.Value) {
	for _, field := range []string{"namePrefix", "nameSuffix"} {
		if v, _ := fields.Get(field).Text(); v != "" {
			k.renames[field] = fields.Get(field).Line()
		}
	}
}

// applies reports whether a tool applies a directory. The path of a source begins at the root of the repository, and
// the files that are checked may begin elsewhere.
func (k *kustomization) applies(dir string) bool {
	dir = "/" + filepath.ToSlash(filepath.Clean(dir)) + "/"
	return k.source == "." || k.source != "" && strings.Contains(dir, "/"+k.source+"/")
}

func (f *File) readKustomization(o *manifest.Object) {
	k := &kustomization{dir: filepath.Dir(f.name), renames: map[string]int{},
		object: object{f, &manifest.Object{Kind: "Kustomization", Name: cmp.Or(o.Name, filepath.Base(f.name)), Line: o.Line}}}
	k.setNamespace(o.Root, "namespace")
	k.addRenames(o.Root)
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
	if k.source != "" && k.applies(filepath.Dir(f.name)) {
		return true
	}
	for _, other := range all {
		if !seen[other] && other.source == "" && k.applies(other.dir) && other.has(f, all, seen) {
			return true
		}
	}
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
			findings = append(findings, k.finding(ruleKustomize, k.moves.Line(), "",
				"%s moves Secret %s, whose ciphertext scope %s binds to one namespace, from or beside %s",
				k.movesName, s.location(), s.scope(), display.Name(strings.Join(others, ", "))))
		}
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	return findings
}
