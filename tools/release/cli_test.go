package main

import (
	"archive/zip"
	"bytes"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/krew/pkg/index"
	"sigs.k8s.io/yaml"
)

// cliFiles returns the content of the archive.
func cliFiles(t *testing.T) map[string]file {
	t.Helper()
	files, _ := unpack(t, read(t, released(t), "secretmanager_"+testVersion+"_linux_"+here.arch+".tar.gz"))
	return files
}

func TestArchive(t *testing.T) {
	files := cliFiles(t)
	want := []string{
		"CHANGELOG.md", "LICENSE", "README.md", "THIRD-PARTY-NOTICES.txt", "completions/_secretmanager",
		"completions/secretmanager.bash",
		"completions/secretmanager.fish", "completions/secretmanager.ps1", "secretmanager",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(files))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for name, first := range map[string]string{"_secretmanager": "#compdef", "secretmanager.bash": "# bash completion",
		"secretmanager.fish": "# fish completion", "secretmanager.ps1": "# powershell completion"} {
		if !bytes.HasPrefix(files["completions/"+name].data, []byte(first)) {
			t.Errorf("%s has unexpected content: %.40q", name, files["completions/"+name].data)
		}
	}
	for _, text := range []string{"std@1.", "github.com/spf13/cobra@v", "Copyright 2009 The Go Authors",
		"Mozilla Public License Version 2.0"} {
		if !bytes.Contains(files["THIRD-PARTY-NOTICES.txt"].data, []byte(text)) {
			t.Errorf("the notices lack %q", text)
		}
	}
	checkVersionOf(t, files["secretmanager"], "secretmanager")
}

// checkVersionOf runs an unpacked program and checks its --version.
func checkVersionOf(t *testing.T, f file, name string) {
	t.Helper()
	if f.mode.Perm() != 0o755 {
		t.Errorf("%s has mode %v", name, f.mode)
	}
	program := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(program, f.data, 0o755); err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput()
	want := regexp.MustCompile("^" + name + " " + regexp.QuoteMeta(testVersion) + ` \(commit ` + testCommit +
		`, go1\.\S+, ` + here.String() + `, FIPS 140-3 off\)\n$`)
	if err != nil || !want.Match(output) {
		t.Errorf("%s printed %q (%v), want %s", name, output, err, want)
	}
}

// TestKrew parses the manifest as krew does, and checks krew's further rules.
func TestKrew(t *testing.T) {
	dir := released(t)
	var plugin index.Plugin
	if err := yaml.UnmarshalStrict(read(t, dir, "secretmanager.yaml"), &plugin); err != nil {
		t.Fatal(err)
	}
	if plugin.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || plugin.Kind != "Plugin" ||
		plugin.Name != "secretmanager" {
		t.Errorf("got %s %s %s", plugin.APIVersion, plugin.Kind, plugin.Name)
	}
	spec := plugin.Spec
	if spec.Version != testVersion || spec.Homepage == "" || spec.Description == "" || spec.ShortDescription == "" ||
		len(spec.ShortDescription) > 50 || strings.HasSuffix(spec.ShortDescription, ".") {
		t.Errorf("version %s, home page %q, short description %q", spec.Version, spec.Homepage, spec.ShortDescription)
	}
	if len(spec.Platforms) != 1 {
		t.Fatalf("got %d platforms, want 1", len(spec.Platforms))
	}
	p := spec.Platforms[0]
	if diff := cmp.Diff(map[string]string{"os": here.os, "arch": here.arch}, p.Selector.MatchLabels); diff != "" {
		t.Errorf("selector, -want +got:\n%s", diff)
	}
	uri, err := url.Parse(p.URI)
	if err != nil || uri.Scheme != "https" || path.Base(path.Dir(uri.Path)) != testVersion {
		t.Fatalf("URI %q: %v", p.URI, err)
	}
	if got := hash(read(t, dir, path.Base(uri.Path))); got != p.Sha256 {
		t.Errorf("sha256 %s, that of the file is %s", p.Sha256, got)
	}
	files := cliFiles(t)
	if files[p.Bin].mode.Perm() != 0o755 {
		t.Errorf("bin %q is no program of the archive", p.Bin)
	}
	if files["LICENSE"].data == nil {
		t.Error("the archive has no license, which krew requires")
	}
}

func TestKrewNamesTheProgramOfWindows(t *testing.T) {
	manifest, err := krew("v1.2.3", []plugin{{platform: platform{"windows", "arm64"}, archive: "a.zip", sha256: "00"}})
	var p index.Plugin
	if err != nil || yaml.UnmarshalStrict(manifest, &p) != nil || p.Spec.Platforms[0].Bin != "secretmanager.exe" {
		t.Errorf("%v\n%s", err, manifest)
	}
}

func TestZip(t *testing.T) {
	files := []file{{"b/a", 0o644, []byte("text")}, {"a.exe", 0o755, []byte("program")}}
	date := time.Unix(1700000000, 0).UTC()
	data, err := zipOf(files, date)
	if err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range r.File {
		got = append(got, f.Name+" "+f.Mode().String()+" "+f.Modified.UTC().Format(time.RFC3339))
	}
	want := []string{"a.exe -rwxr-xr-x 2023-11-14T22:13:20Z", "b/a -rw-r--r-- 2023-11-14T22:13:20Z"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestKubectlPlugin unpacks the archive, links the program as krew does, and runs it
// through kubectl.
func TestKubectlPlugin(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", "./test/programs/cmd/programs", "kubectl")
	cmd.Dir = "../.."
	kubectl, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	archive, err := filepath.Abs(filepath.Join(released(t), "secretmanager_"+testVersion+"_linux_"+here.arch+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if output, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-xzf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	bin := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "secretmanager"), filepath.Join(bin, "kubectl-secretmanager")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	for arg, want := range map[string]string{"--version": "secretmanager " + testVersion + " (",
		"--help": "kubectl secretmanager [command]"} {
		output, err := exec.CommandContext(t.Context(), strings.TrimSpace(string(kubectl)), "secretmanager", arg).
			CombinedOutput()
		if err != nil || !strings.Contains(string(output), want) {
			t.Errorf("kubectl secretmanager %s: %v, want %q in:\n%s", arg, err, want, output)
		}
	}
}
