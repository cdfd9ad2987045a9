package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The wrapper removes one capability from the file that runc reads, wherever it is in the list, and does not change the
// arguments.
func TestRuncWrapper(t *testing.T) {
	for _, test := range []struct {
		name, file, content, want string
		args                      func(path string) []string
	}{
		{"run", "config.json", `{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE","CAP_KILL"]}`,
			`{"bounding":["CAP_CHOWN","CAP_KILL"]}`,
			func(path string) []string {
				return []string{"--root", "r", "run", "--bundle", filepath.Dir(path), "id"}
			}},
		{"bundle with =", "config.json", `["CAP_SYS_RESOURCE","CAP_KILL"]`, `["CAP_KILL"]`,
			func(path string) []string { return []string{"create", "--bundle=" + filepath.Dir(path), "id"} }},
		{"exec", "process.json", `["CAP_KILL","CAP_SYS_RESOURCE"]`, `["CAP_KILL"]`,
			func(path string) []string { return []string{"exec", "--process", path, "id"} }},
		{"no file", "process.json", `["CAP_SYS_RESOURCE"]`, `["CAP_SYS_RESOURCE"]`,
			func(string) []string { return []string{"kill", "id", "KILL"} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, content string, mode os.FileMode) string {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, []byte(content), mode); err != nil {
					t.Fatal(err)
				}
				return path
			}
			wrapper := write("wrapper", string(runcWrapper), 0o755)
			write("runc", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n", 0o755)
			path := write(test.file, test.content, 0o600)

			args := test.args(path)
			cmd := exec.Command(wrapper, args...)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got, want := string(out), strings.Join(args, "\n")+"\n"; got != want {
				t.Errorf("runc got the arguments %q, want %q", got, want)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("the file holds %s, want %s", got, test.want)
			}
		})
	}
}

func TestIsEngine(t *testing.T) {
	if isEngine(os.Getpid()) {
		t.Error("this test is taken for a dockerd")
	}
	if isEngine(1 << 30) {
		t.Error("a process that is not there is taken for a dockerd")
	}
}

func TestCloseOnExec(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	fd, err := syscall.Open(file, syscall.O_CREAT|syscall.O_RDWR, 0o600) // as a shell opens it, for its children too
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	inherited := func() string {
		t.Helper()
		out, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if !strings.Contains(inherited(), file) {
		t.Fatal("a child does not inherit the file as it is")
	}
	if err := closeOnExec(); err != nil {
		t.Fatal(err)
	}
	if open := inherited(); strings.Contains(open, file) {
		t.Errorf("a child has it open:\n%s", open)
	}
}
