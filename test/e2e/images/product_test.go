package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/test/e2e/step"
	"github.com/secretmanager-io/secretmanager/test/programs"
)

// TestForeignArchitecture makes the released image for amd64 and arm64 and runs the
// programs of both: those of the other architecture in an emulator, as user 65532,
// with the image's files as their root file system.
func TestForeignArchitecture(t *testing.T) {
	root, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := release(t.Context(), root, t.TempDir(), "linux/amd64,linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	blobs := untar(t, archive)
	var docker []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(blobs["manifest.json"], &docker); err != nil || len(docker) != 2 {
		t.Fatalf("%d images, %v", len(docker), err)
	}
	for _, image := range docker {
		var config struct{ OS, Architecture, Variant string }
		if err := json.Unmarshal(blobs[image.Config], &config); err != nil {
			t.Fatal(err)
		}
		t.Run(config.Architecture, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil { // user 65532 reads it
				t.Fatal(err)
			}
			unpackLayer(t, blobs[image.Layers[0]], dir)
			for _, name := range inProduct {
				checkProgram(t, dir, name, config.Architecture)
			}
		})
	}
}

// TestForeignSystems checks that the CLI compiles, with the flags of a release, for the
// released systems on which no test runs.
func TestForeignSystems(t *testing.T) {
	root, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	for system, arch := range map[string]string{"windows": "amd64", "darwin": "arm64"} {
		t.Run(system, func(t *testing.T) {
			cmd := step.Command(t.Context(), "go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-o",
				filepath.Join(t.TempDir(), "secretmanager"), "./cmd/secretmanager")
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOWORK=off", "GOFLAGS=-trimpath")
			if _, err := step.Run(cmd); err != nil {
				t.Error(err)
			}
		})
	}
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// emulators are the programs of qemu-user-static.
var emulators = map[string]string{"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}

func checkProgram(t *testing.T, dir, name, arch string) {
	t.Helper()
	f, err := elf.Open(filepath.Join(dir, "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != machines[arch] {
		t.Errorf("%s is for %v", name, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s needs a dynamic linker", name)
		}
	}
	output, err := run(t, dir, arch, name, "--version")
	want := name + " " + productVersion + " (commit e2e, go1."
	if err != nil || !strings.HasPrefix(output, want) || !strings.Contains(output, "linux/"+arch+", ") {
		t.Errorf("%s --version: %v, %s", name, err, output)
	}
	// The program gets past its flags: it reports that it has no cluster, or no Vault.
	output, err = run(t, dir, arch, name, "--vault-addr=https://127.0.0.1:1", "--log-format=json")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() > 2 || strings.Contains(output, "panic") ||
		strings.Contains(output, "SIG") {
		t.Errorf("%s without a cluster: %v, %s", name, err, output)
	}
}

// run runs a program of the image with the directory as its root, in an emulator if it is
// for another architecture than this machine's.
func run(t *testing.T, dir, arch, name string, args ...string) (string, error) {
	t.Helper()
	command := []string{"--userspec=65532:65532", dir, "/bin/" + name}
	machine, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	native := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}
	if native[strings.TrimSpace(string(machine))] != arch {
		emulator, err := exec.LookPath(emulators[arch])
		if err != nil {
			if err := step.Install(t.Context(), "an emulator for "+arch, "qemu-user-static"); err != nil {
				t.Fatal(err)
			}
			if emulator, err = exec.LookPath(emulators[arch]); err != nil {
				t.Fatal(err)
			}
		}
		program, err := os.ReadFile(emulator)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "emulator"), program, 0o755); err != nil {
			t.Fatal(err)
		}
		command = []string{"--userspec=65532:65532", dir, "/emulator", "/bin/" + name}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	output, err := exec.CommandContext(ctx, "chroot", append(command, args...)...).CombinedOutput()
	return string(output), err
}

func untar(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func unpackLayer(t *testing.T, layer []byte, dir string) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "layer.tar")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, z); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-xpf", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}
