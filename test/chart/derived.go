package chart

import (
	"context"
	"os"
	"path/filepath"
)

// Derived returns every file that is made of the chart, by its path in the
// repository at root.
func Derived(ctx context.Context, helm *Helm) (map[string]string, error) {
	values, err := ReadSchema(helm.Chart)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	if files[Folder+"/values.yaml"], err = ValuesYAML(values); err != nil {
		return nil, err
	}
	if files["docs/reference/chart.md"], err = Page(values); err != nil {
		return nil, err
	}
	manifests, err := Manifests(ctx, helm)
	if err != nil {
		return nil, err
	}
	// A kustomization takes no file from outside its folder.
	dashboard, err := os.ReadFile(filepath.Join(helm.Chart, "monitoring", "dashboard.json"))
	if err != nil {
		return nil, err
	}
	files["manifests/monitoring/dashboard.json"] = string(dashboard)
	for name, text := range manifests {
		files["manifests/"+name] = text
	}
	return files, nil
}

// Write brings every file that is made of the chart up to date and returns the
// names of those that were not.
func Write(ctx context.Context, helm *Helm, root string) (changed []string, err error) {
	// The values first: the manifests are rendered with them.
	values, err := ReadSchema(helm.Chart)
	if err != nil {
		return nil, err
	}
	text, err := ValuesYAML(values)
	if err != nil {
		return nil, err
	}
	put := func(name, text string) error {
		path := filepath.Join(root, filepath.FromSlash(name))
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			return nil
		}
		changed = append(changed, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(text), 0o644)
	}
	if err := put(Folder+"/values.yaml", text); err != nil {
		return nil, err
	}
	files, err := Derived(ctx, helm)
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := put(name, text); err != nil {
			return nil, err
		}
	}
	return changed, nil
}
