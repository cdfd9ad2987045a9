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
	dir        string
	resources  []string // files and directories
	source     string   // the directory of the repository that the tool applies; empty for a kustomization
	namespace  string
	moves      manifest.Value   // the field with the namespace
	movesName  string           // name of that field
	renames    map[string]int   // namePrefix and nameSuffix, with their lines
	generators []manifest.Value // of Secrets
	patches    []string         // files
	patched    bool             // inline patches or other fields change volumes or classes
	files      []*File          // that it applies, directly or by another kustomization
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
	k := &kustomization{object: object{file: f, Object: o}, renames: map[string]int{}}
	path, _ := source.Get("path").Text()
	k.source = filepath.ToSlash(filepath.Clean("./" + path))
	k.setNamespace(changes, namespace)
	k.addRenames(changes)
	k.patched = changesVolumes(changes.Get("patches"))
	if k.namespace != "" || len(k.renames) > 0 || k.patched {
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
		object: object{file: f, Object: &manifest.Object{Kind: "Kustomization", Name: cmp.Or(o.Name, filepath.Base(f.name)),
			Line: o.Line}}}
	k.setNamespace(o.Root, "namespace")
	k.addRenames(o.Root)
	for _, field := range []string{"resources", "bases", "components"} {
		for _, r := range o.Root.Get(field).List() {
			if path, _ := r.Text(); path != "" {
				k.resources = append(k.resources, filepath.Join(k.dir, path))
			}
		}
	}
	k.readPatches(o.Root)
	f.kustomizations = append(f.kustomizations, k)
	k.generators = o.Root.Get("secretGenerator").List()
	for _, g := range k.generators {
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

// bound returns the ciphertext Secrets that the kustomization applies.
func (k *kustomization) bound() (secrets []*secret) {
	for _, f := range k.files {
		secrets = append(secrets, f.secrets...)
	}
	return secrets
}

func (k *kustomization) check(o Options) (findings []Finding) {
	if o.ForbidPlaintext {
		for _, g := range k.generators {
			findings = append(findings, k.checkForbiddenGenerator(g)...)
		}
	}
	for _, s := range k.bound() {
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
