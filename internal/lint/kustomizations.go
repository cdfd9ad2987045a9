package lint

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// volumeFields are in every patch that changes volumes or classes.
var volumeFields = []string{"secretProviderClass", "SecretProviderClass", "nodePublishSecretRef", "volumes"}

func mentionsVolumes(text string) bool {
	return slices.ContainsFunc(volumeFields, func(field string) bool { return strings.Contains(text, field) })
}

// changesVolumes reports whether inline patches, replacements or transformers may change volumes or classes.
func changesVolumes(v manifest.Value) bool {
	if text, ok := v.Text(); ok && mentionsVolumes(text) {
		return true
	}
	for _, p := range v.Pairs() {
		if changesVolumes(p.Value) {
			return true
		}
	}
	return slices.ContainsFunc(v.List(), changesVolumes)
}

// readPatches reads the fields of a kustomization that change objects. Their result is known only to kustomize.
func (k *kustomization) readPatches(root manifest.Value) {
	for _, field := range []string{"patches", "patchesStrategicMerge", "patchesJson6902", "replacements", "vars",
		"configurations", "transformers"} {
		items := root.Get(field)
		k.patched = k.patched || changesVolumes(items)
		for _, item := range items.List() {
			for _, v := range []manifest.Value{item, item.Get("path")} {
				if path, ok := v.Text(); ok && path != "" && !strings.Contains(path, "\n") {
					k.patches = append(k.patches, filepath.Join(k.dir, path))
				}
			}
		}
	}
}

// graph finds files and kustomizations by their paths.
type graph struct {
	files   []*File
	byName  map[string]*File
	inDir   map[string][]*kustomization
	sources []*kustomization // all of kustomize, which a GitOps tool may apply
}

// linkKustomizations finds what each kustomization applies, and records what it changes there.
func linkKustomizations(files []*File) {
	g := graph{files: files, byName: map[string]*File{}, inDir: map[string][]*kustomization{}}
	for _, f := range files {
		g.byName[filepath.Clean(f.name)] = f
		for _, k := range f.kustomizations {
			if k.source == "" {
				g.inDir[k.dir] = append(g.inDir[k.dir], k)
				g.sources = append(g.sources, k)
			}
		}
	}
	for _, f := range files {
		for _, k := range f.kustomizations {
			g.link(k)
		}
	}
}

func (g *graph) link(k *kustomization) {
	applied := map[*File]bool{}
	g.apply(k, applied, map[*kustomization]bool{})
	for _, path := range k.patches {
		if f := g.byName[path]; f != nil {
			f.patch = true
			k.patched = k.patched || f.mentionsVolumes
		}
	}
	for _, f := range g.files {
		if !applied[f] {
			continue
		}
		k.files = append(k.files, f)
		for _, o := range f.objects() {
			if k.namespace != "" && !slices.Contains(o.namespaces, k.namespace) {
				o.namespaces = append(o.namespaces, k.namespace)
			}
			o.renamed = o.renamed || len(k.renames) > 0
			o.patched = o.patched || k.patched
		}
	}
}

// apply adds the files among the resources, directly or by another kustomization.
func (g *graph) apply(k *kustomization, applied map[*File]bool, seen map[*kustomization]bool) {
	if seen[k] {
		return
	}
	seen[k] = true
	if k.source != "" {
		for _, f := range g.files {
			if k.applies(filepath.Dir(f.name)) {
				applied[f] = true
			}
		}
		for _, other := range g.sources {
			if k.applies(other.dir) {
				g.apply(other, applied, seen)
			}
		}
	}
	for _, r := range k.resources {
		if f := g.byName[r]; f != nil {
			applied[f] = true
		}
		for _, other := range g.inDir[r] {
			g.apply(other, applied, seen)
		}
	}
}

// objects returns the objects that kustomizations change.
func (f *File) objects() (all []*object) {
	for _, s := range slices.Concat(f.secrets, f.plain) {
		all = append(all, &s.object)
	}
	for _, c := range f.classes {
		all = append(all, &c.object)
	}
	for _, v := range f.volumes {
		all = append(all, &v.object)
	}
	return slices.Concat(all, f.otherClasses, f.accounts)
}
