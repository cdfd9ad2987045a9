package chart

import (
	"context"
	"os"
	"path/filepath"
)

// Derived returns every file that is generated from the chart, by its path in the repository.
func Derived(ctx context.Context, helm *Helm) (map[string]string, error) {
	values, err := ReadSchema(helm.Chart)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	if files[Dir+"/values.yaml"], err = ValuesYAML(values); err != nil {
		return nil, err
	}
	if files[Dir+"/defaults.json"], err = Defaults(values); err != nil {
		return nil, err
	}
	if files["docs/reference/chart.md"], err = Page(values); err != nil {
		return nil, err
	}
	manifests, err := Manifests(ctx, helm)
	if err != nil {
		return nil, err
	}
	// A kustomization cannot include files from outside its directory.
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

// Write updates every file that is generated from the chart in the repository at root, and returns the names of the
// files that changed.
func Write(ctx context.Context, helm *Helm, root string) (changed []string, err error) {
	// Write the values first, because Helm renders the manifests with them.
	values, err := ReadSchema(helm.Chart)
	if err != nil {
		return nil, err
	}
	text, err := ValuesYAML(values)
	if err != nil {
		return nil, err
	}
	defaults, err := Defaults(values)
	if err != nil {
		return nil, err
	}
	write := func(name, text string) error {
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
	if err := write(Dir+"/values.yaml", text); err != nil {
		return nil, err
	}
	if err := write(Dir+"/defaults.json", defaults); err != nil {
		return nil, err
	}
	files, err := Derived(ctx, helm)
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := write(name, text); err != nil {
			return nil, err
		}
	}
	return changed, nil
}
