package chart

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func newHelm(t *testing.T) *Helm {
	t.Helper()
	helm, err := NewHelm(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return helm
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDerivedFilesAreCurrent: no file that is generated from the chart is out of date.
func TestDerivedFilesAreCurrent(t *testing.T) {
	files, err := Derived(t.Context(), newHelm(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if diff := cmp.Diff(want, read(t, name)); diff != "" {
			t.Errorf("%s is out of date: change the chart and run `make manifests` (-want +got):\n%s", name, diff)
		}
	}
}

// TestEveryManifestIsRendered: only few manifests are written by hand.
func TestEveryManifestIsRendered(t *testing.T) {
	byHand := []string{ // see table
		"namespace.yaml",
		"driver/csidriver.yaml",
	}
	var want []string
	for _, m := range table {
		want = append(want, m.file)
	}
	want = append(want, byHand...)
	dir := filepath.Join(root(t), "manifests")
	var got []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".yaml") && d.Name() != "kustomization.yaml" {
			name, _ := filepath.Rel(dir, path)
			got = append(got, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("manifests/ and the table in manifests.go (-table +directory):\n%s", diff)
	}
}

// TestKustomization: the image and the ConfigMap in manifests/kustomization.yaml are the defaults of the chart.
func TestKustomization(t *testing.T) {
	var kustomization struct {
		ConfigMapGenerator []struct {
			Name, Namespace string
			Literals        []string
		}
		Images []struct{ Name, NewTag string }
	}
	if err := yaml.Unmarshal([]byte(read(t, "manifests/kustomization.yaml")), &kustomization); err != nil {
		t.Fatal(err)
	}
	var chart struct{ Version, AppVersion string }
	if err := yaml.Unmarshal([]byte(read(t, Dir+"/Chart.yaml")), &chart); err != nil {
		t.Fatal(err)
	}
	var values struct {
		Image struct{ Repository string }
		Vault struct{ Address string }
	}
	if err := yaml.Unmarshal([]byte(read(t, Dir+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	images := kustomization.Images
	if len(images) != 1 || images[0].Name != values.Image.Repository || images[0].NewTag != chart.AppVersion {
		t.Errorf("kustomize uses the image %+v, the chart %s:%s", images, values.Image.Repository, chart.AppVersion)
	}
	maps := kustomization.ConfigMapGenerator
	if len(maps) != 1 || maps[0].Name != "secretmanager-vault" || maps[0].Namespace != manifestNamespace ||
		!slices.Equal(maps[0].Literals, []string{"VAULT_ADDR=" + values.Vault.Address}) {
		t.Errorf("kustomize generates the ConfigMaps %+v, the chart one with VAULT_ADDR=%s", maps, values.Vault.Address)
	}
}

// TestLint runs helm lint.
func TestLint(t *testing.T) {
	helm := newHelm(t)
	out, err := helm.Run(t.Context(), "lint", "--strict", "--quiet", helm.Chart)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out != "" {
		t.Errorf("helm lint prints:\n%s", out)
	}
}
