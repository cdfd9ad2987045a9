package programs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// repository creates a main module with a nested module, which has a program with the source main.
func repository(t *testing.T, main string) (root string, p program) {
	t.Helper()
	root = t.TempDir()
	write(t, root, "go.mod", mainModule+"\n\ngo 1.26.0\n")
	write(t, root, "test/hello/go.mod", "module example.org/hello\n\ngo 1.26.0\n")
	write(t, root, "test/hello/main.go", main)
	return root, program{dir: "test/hello", pkg: ".", ldflags: "-X main.greeting=hello"}
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	path := filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

const hello = "package main\n\nvar greeting string\n\nfunc main() { print(greeting) }\n"

func TestBuildAndKeep(t *testing.T) {
	root, p := repository(t, hello)
	p.shared = "test/shared"
	write(t, root, "test/shared/go.mod", "module example.org/shared\n\ngo 1.26.0\n")
	path, err := ensure(t.Context(), root, "hello", p)
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), path).CombinedOutput()
	if err != nil || string(output) != "hello" {
		t.Fatalf("the program printed %q (%v), want the value of the linker flag", output, err)
	}
	built := modified(t, path)

	for _, test := range []struct {
		name    string
		change  func()
		rebuilt bool
	}{
		{"nothing changed", func() {}, false},
		{"a test of the module changed", func() { write(t, root, "test/hello/main_test.go", "package main\n") }, false},
		{"its readme changed", func() { write(t, root, "test/hello/README.md", "hello\n") }, false},
		{"another module changed", func() { write(t, root, "test/other/main.go", "package main\n") }, false},
		{"its source changed", func() { write(t, root, "test/hello/main.go", hello+"// changed\n") }, true},
		{"a package of it changed", func() { write(t, root, "test/hello/inner/inner.go", "package inner\n") }, true},
		{"its shared module changed", func() { write(t, root, "test/shared/shared.go", "package shared\n") }, true},
		{"its go.mod changed",
			func() { write(t, root, "test/hello/go.mod", "module example.org/hello\n\ngo 1.26.0\n\n// changed\n") }, true},
		{"the linker's flags changed", func() { p.ldflags = "" }, true},
		{"the program is missing", func() { os.Remove(path) }, true},
		{"the stamp is missing", func() { os.Remove(path + ".stamp") }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.change()
			if _, err := ensure(t.Context(), root, "hello", p); err != nil {
				t.Fatal(err)
			}
			modTime := modified(t, path)
			if rebuilt := !modTime.Equal(built); rebuilt != test.rebuilt {
				t.Errorf("rebuilt: %v, want %v", rebuilt, test.rebuilt)
			}
			built = modTime
		})
	}
}

func modified(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

func TestConcurrentCallers(t *testing.T) {
	root, p := repository(t, hello)
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			path, err := ensure(t.Context(), root, "hello", p)
			if err != nil {
				t.Error(err)
				return
			}
			if output, err := exec.CommandContext(t.Context(), path).CombinedOutput(); err != nil {
				t.Errorf("running it: %v: %s", err, output)
			}
		})
	}
	done.Wait()
}

func TestFailedBuildShowsCompilerOutput(t *testing.T) {
	root, p := repository(t, "package main\n\nfunc main() { undefined() }\n")
	path, err := ensure(t.Context(), root, "hello", p)
	if err == nil {
		t.Fatalf("a program that does not compile was built as %s", path)
	}
	for _, want := range []string{"building hello in test/hello", "undefined: undefined"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not contain %q:\n%v", want, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(root, ".cache", "programs", "hello*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if !strings.HasSuffix(name, ".lock") {
			t.Errorf("the failed build left %s", name)
		}
	}
}

func TestInterruptedBuild(t *testing.T) {
	root, p := repository(t, hello)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no more time")
	cancel(why)
	if _, err := ensure(ctx, root, "hello", p); !errors.Is(err, why) {
		t.Errorf("got %v, want an error that wraps why the context ended", err)
	}
}

func TestInterruptedWaitForTheLock(t *testing.T) {
	root, p := repository(t, hello)
	write(t, root, ".cache/programs/keep", "")
	unlock, err := lock(t.Context(), filepath.Join(root, ".cache", "programs", "hello.lock"), "hello")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := ensure(ctx, root, "hello", p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestLockHandover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, "hello")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		second, err := lock(t.Context(), path, "hello")
		if err == nil {
			second()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestRootSkipsNestedModules(t *testing.T) {
	root, _ := repository(t, hello)
	got, err := rootAbove(filepath.Join(root, "test", "hello"))
	if err != nil || got != root {
		t.Errorf("got %q (%v), want %q", got, err, root)
	}
	if got, err := rootAbove(t.TempDir()); err == nil {
		t.Errorf("outside of the repository its root is %q, want an error", got)
	}
}

func TestEveryProgramHasAModule(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		p, err := lookup(root, name)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := os.Stat(filepath.Join(root, p.dir, "go.mod")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.HasPrefix(p.pkg, ".") {
			if _, err := os.Stat(filepath.Join(root, p.dir, p.pkg)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []Component{Kubernetes, Driver} {
		t.Setenv(c.Variable, "")
		v, err := c.Selected()
		if err != nil || v.Name != c.Default || !strings.HasPrefix(v.Tag, "v"+c.Default) {
			t.Errorf("without %s: %+v, %v", c.Variable, v, err)
		}
		all, err := c.Versions()
		if err != nil || len(all) < 2 {
			t.Errorf("%s: %+v, %v", c.dir, all, err)
		}
		for _, want := range all {
			t.Setenv(c.Variable, want.Name)
			if v, err := c.Selected(); err != nil || v != want || !strings.HasPrefix(v.Tag, "v"+want.Name) {
				t.Errorf("%s=%s: %+v, %v", c.Variable, want.Name, v, err)
			}
		}
		for _, name := range []string{"1.2", "mlog", "../driver/1.6.0", "1.3*"} {
			t.Setenv(c.Variable, name)
			if v, err := c.Selected(); err == nil || !strings.Contains(err.Error(), c.Default) {
				t.Errorf("%s=%s: %+v, %v", c.Variable, name, v, err)
			}
		}
		t.Setenv(c.Variable, "")
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(Kubernetes.Variable, "1.36")
	p, err := lookup(root, "kubelet")
	if err != nil || p.storedIn != "1.36" || !strings.Contains(p.ldflags, "gitVersion=v1.36.") {
		t.Errorf("the kubelet of 1.36: %+v, %v", p, err)
	}
}

func TestUnknownProgram(t *testing.T) {
	_, err := Build(t.Context(), "vault", "vualt")
	if err == nil || !strings.Contains(err.Error(), `"vualt"`) || !strings.Contains(err.Error(), "vault") {
		t.Errorf("got %v, want an error that names it and those there are", err)
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"GOPROXY=https://proxy.example", "GOFLAGS=-race", "GOOS=plan9", "GOFIPS140=certified",
		"HOME=/h", "CGO_ENABLED=1"}, "/d")
	want := []string{"GOPROXY=https://proxy.example", "HOME=/h", "CGO_ENABLED=0", "GOFIPS140=off", "GOFLAGS=-trimpath",
		"GOWORK=off", "PWD=/d"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestProgress(t *testing.T) {
	var log, terminal strings.Builder
	startProgress(&log, false, "building hello").stop()
	if got, want := log.String(), "building hello …\n"; got != want {
		t.Errorf("a log gets %q, want %q", got, want)
	}
	startProgress(&terminal, true, "building hello").stop()
	if got, want := terminal.String(), "\r\x1b[Kbuilding hello …\r\x1b[K"; got != want {
		t.Errorf("a terminal gets %q, want %q", got, want)
	}
}

func TestTail(t *testing.T) {
	if got, want := tail("a\nb\nc\nd\n", 2), "…\nc\nd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := tail("a\nb\n", 2), "a\nb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
